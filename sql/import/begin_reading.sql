-- Sets a transaction up to read one moment of the source for as long as it takes, and to write times in a form that
-- reads the same anywhere.
set transaction isolation level repeatable read, read only;
set local statement_timeout = 0;
set local datestyle = 'ISO, YMD';
