-- Returns how many movies the user had, and whether they are deleted; no row if the user does not exist, is inactive while
-- a token is given, or the token is of another generation. Deletes a user with at most $3 movies together with the movies. Marks a user with more as deleted
-- (is_active is null): from then on no statement finds the user, and the name and the address are free;
-- delete_some_movies.sql deletes the movies.
-- $1 bigint: user; $2 bigint: generation of the token, or null for any; $3 bigint: the largest number of movies to delete
-- Uses users_id_key, and movies_by_creator for the movies, which the foreign key deletes.
-- The row is locked first, since the number of movies may change until then. The random name is no valid username, so
-- no registration can take it; readers of the remaining movies see it in their creator's place.
with locked as materialized (
    select id, movie_count
    from users
    where id = $1::bigint
      and is_active is not null
      and ($2::bigint is null or is_active and token_generation = $2::bigint)
    for update
), deleted as (
    delete from users
    using locked
    where users.id = locked.id
      and locked.movie_count <= $3::bigint
), marked as (
    update users
    set
        is_active = null,
        username = '#' || gen_random_uuid(),
        email = '',
        first_name = '',
        last_name = '',
        password_hash = ''
    from locked
    where users.id = locked.id
      and locked.movie_count > $3::bigint
)
select movie_count, movie_count <= $3::bigint as is_complete
from locked;
