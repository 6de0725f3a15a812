-- Returns once no other instance migrates this database; the lock ends with the transaction.
-- The number is this program's own: 668437 spells "movies" on a telephone's keys.
select pg_advisory_xact_lock(7309453668437);
