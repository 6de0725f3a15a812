-- Lets ids go on past the last ones of the source.
-- $1 bigint: its last id of a user; $2 bigint: of a movie; 0 for none
select
    setval(pg_get_serial_sequence('users', 'id'), greatest($1::bigint, 1), $1::bigint > 0) as last_user_id,
    setval(pg_get_serial_sequence('movies', 'id'), greatest($2::bigint, 1), $2::bigint > 0) as last_movie_id;
