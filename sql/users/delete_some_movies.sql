-- Returns one row: how many movies of a deleted user this statement deleted, and the last one's id. Deletes the first ones
-- after a given id, without those that another transaction changes or deletes at the moment.
-- $1 bigint: user; $2 bigint: the id, 0 for the first part; $3 bigint: the largest number of movies
-- Uses users_deleted, movies_by_creator and movies_id_key.
with part as materialized (
    select movie.id
    from movies as movie
    where movie.creator_id = $1::bigint
      and movie.id > $2::bigint
      and exists (select from users where id = $1::bigint and is_active is null)
    order by movie.id
    limit $3::bigint
    for update skip locked
), deleted as (
    delete from movies as movie
    using part
    where movie.id = part.id
)
select count(*) as movie_count, max(id) as last_id
from part;
