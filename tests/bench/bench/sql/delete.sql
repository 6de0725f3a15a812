-- One question of the product's movies/delete.sql, as plainly as it can be asked.
-- $1 bigint: the user who asks; $2 bigint: the movie
with asker as (
    select is_active
    from users
    where id = $1::bigint
), found as (
    select creator_id
    from movies
    where id = $2::bigint
), deleted as (
    delete from movies as movie
    using asker
    where movie.id = $2::bigint
      and movie.creator_id = $1::bigint
      and asker.is_active
    returning movie.id
)
select asker.is_active as asker_is_active, found.creator_id, deleted.id
from (select) as asked
left join asker on true
left join found on true
left join deleted on true
