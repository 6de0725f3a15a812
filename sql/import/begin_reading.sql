-- Sets up a transaction that reads one snapshot of the Django application's database, without a time limit, and writes
-- timestamps in a format that every server reads in the same way.
set transaction isolation level repeatable read, read only;
set local statement_timeout = 0;
set local datestyle = 'ISO, YMD';
