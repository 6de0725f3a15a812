-- Sets a transaction up to be the only one that writes, for as long as it takes; readers go on.
set local statement_timeout = 0;
set local datestyle = 'ISO, YMD';
lock table users, movies in share row exclusive mode;
