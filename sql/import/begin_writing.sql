-- Sets up a transaction during which no other one writes users or movies, without a time limit; reads continue.
set local statement_timeout = 0;
set local datestyle = 'ISO, YMD';
lock table users, movies in share row exclusive mode;
