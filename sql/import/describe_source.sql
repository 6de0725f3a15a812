-- Returns one row about the Django application's tables: the numbers of users, of movies and of users without an e-mail
-- address, and the last ids that were given out. An id is not given out again even if its row was deleted, since a
-- token of that user may still be valid.
select
    (select count(*) from auth_user) as users,
    (select count(*) from movies_movie) as movies,
    (select count(*) from auth_user where email = '') as users_without_email,
    greatest(
        (select max(id) from auth_user),
        (
            select last_value from pg_sequences
            where format('%I.%I', schemaname, sequencename) = pg_get_serial_sequence('auth_user', 'id')
        ),
        0
    )::bigint as last_user_id,
    greatest(
        (select max(id) from movies_movie),
        (
            select last_value from pg_sequences
            where format('%I.%I', schemaname, sequencename) = pg_get_serial_sequence('movies_movie', 'id')
        ),
        0
    )::bigint as last_movie_id;
