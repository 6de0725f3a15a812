-- Returns the last ids that were given out, after setting the sequences past those of the Django application.
-- $1 bigint: its last user id; $2 bigint: its last movie id; 0 if it gave out none
select
    setval(pg_get_serial_sequence('users', 'id'), greatest($1::bigint, 1), $1::bigint > 0) as last_user_id,
    setval(pg_get_serial_sequence('movies', 'id'), greatest($2::bigint, 1), $2::bigint > 0) as last_movie_id;
