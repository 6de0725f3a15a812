-- Sets up a transaction that reads one snapshot, in which counts and rows agree, and changes nothing. Takes no lock and
-- also runs on a standby.
set transaction isolation level repeatable read, read only;
set local statement_timeout = '60s';
