-- Deletes one movie: the simplest statement that does what sql/movies/delete.sql does for one request.
-- $1 bigint: the user who makes the request; $2 bigint: the movie
with requester as (
    select is_active
    from users
    where id = $1::bigint
), found as (
    select creator_id
    from movies
    where id = $2::bigint
), deleted as (
    delete from movies as movie
    using requester
    where movie.id = $2::bigint
      and movie.creator_id = $1::bigint
      and requester.is_active
    returning movie.id
)
select requester.is_active as user_is_active, found.creator_id, deleted.id
from (select) as one_row
left join requester on true
left join found on true
left join deleted on true
