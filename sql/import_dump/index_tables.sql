-- Prepares the tables of a dump for the checks: indexes, statistics, and the creators that are named by their username.
-- A creator that does not exist gets the smallest id, which no valid user has.
create index on pg_temp.auth_user (id);
create index on pg_temp.auth_user (username);
create index on pg_temp.auth_user (email);
analyze pg_temp.auth_user;
update pg_temp.movies_movie
set creator_id = coalesce((select max(id) from pg_temp.auth_user where username = creator_username), -9223372036854775808)
where creator_username is not null;
analyze pg_temp.movies_movie;
