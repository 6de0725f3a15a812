-- Deletes a movie of the user who asks, if they are active and its creator; answers who asks, whose the movie
-- was, and its id if it is gone by this statement.
-- $1 bigint: the user who asks; $2 bigint: the movie
-- Rests on users_id_key and movies_id_key.
with asker as (
    select id, is_active
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
      and movie.creator_id = asker.id
      and asker.is_active
    returning movie.id
)
select asker.is_active as asker_is_active, found.creator_id, deleted.id
from (select) as one_row
left join asker on true
left join found on true
left join deleted on true;
