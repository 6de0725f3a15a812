-- Answers once no other instance is migrating; the lock goes with the transaction.
-- 7309453 is "movies" on a telephone's keys (668437), made odd enough to be nobody else's.
select pg_advisory_xact_lock(7309453668437);
