-- Makes a movie of the user who asks, if they are active; answers who asks and the new id.
-- $1 bigint: the user who asks; $2 text: title; $3 text: genre; $4 integer: year
-- Rests on users_id_key.
with asker as (
    select id, username, is_active
    from users
    where id = $1::bigint
), created as (
    insert into movies (title, genre, year, creator_id)
    select $2::text, $3::text, $4::integer, asker.id
    from asker
    where asker.is_active
    returning id
)
select asker.is_active as asker_is_active, created.id, asker.username as creator
from (select) as one_row
left join asker on true
left join created on true;
