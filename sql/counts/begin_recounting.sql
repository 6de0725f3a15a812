-- Sets a transaction up to be the only one that writes movies, for as long as it takes; readers, registrations and
-- sign-ins go on. Every change of a kept count comes from a change of movies, so this lock is enough.
set local lock_timeout = '10s';
set local statement_timeout = '60s';
lock table movies in share row exclusive mode;
