-- Returns one row: how many movies a deleted user still had if this statement deleted the user's row with them (null if
-- not), and whether the row remains. Deletes the row unless the user has more movies than given.
-- $1 bigint: user; $2 bigint: the largest number of movies
-- Uses users_id_key, and movies_by_creator for the movies, which the foreign key deletes.
with deleted as (
    delete from users
    where id = $1::bigint
      and is_active is null
      and movie_count <= $2::bigint
    returning movie_count
)
select
    (select movie_count from deleted) as movie_count,
    exists (select from users where id = $1::bigint and is_active is null) and not exists (select from deleted) as remains;
