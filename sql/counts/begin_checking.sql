-- Sets a transaction up to see one state of the database, in which kept counts and rows belong together, and to change
-- nothing. It takes no lock, and runs on a standby too.
set transaction isolation level repeatable read, read only;
set local statement_timeout = '60s';
