-- Sets up a transaction during which no other one writes movies; reads, registrations and sign-ins continue. Counts
-- change only with movies, so this lock is enough.
set local lock_timeout = '10s';
set local statement_timeout = '60s';
lock table movies in share row exclusive mode;
