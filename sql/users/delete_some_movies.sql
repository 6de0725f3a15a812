-- Returns one row: how many movies of a deleted user this statement deleted, and the id of the last one that it looked at
-- (null: there is none). Looks at the first movies after a given id, and passes over those that another transaction changes
-- or deletes at the moment.
-- $1 bigint: user; $2 bigint: the id, 0 for the first part; $3 bigint: the largest number of movies
-- Uses users_deleted, movies_by_creator alone to find the movies, and movies_id_key to lock and delete them: the planner
-- expects few elements in an array, where it might join by reading the whole table.
with found as materialized (
    select movie.id
    from movies as movie
    where movie.creator_id = $1::bigint
      and movie.id > $2::bigint
      and exists (select from users where id = $1::bigint and is_active is null)
    order by movie.id
    limit $3::bigint
), part as materialized (
    select movie.id
    from movies as movie
    where movie.id = any (array(select id from found))
    for update skip locked
), deleted as (
    delete from movies as movie
    where movie.id = any (array(select id from part))
)
select count(*) as movie_count, (select max(id) from found) as last_id
from part;
