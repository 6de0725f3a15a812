-- Creates one movie: the simplest statement that does what sql/movies/create.sql does for one request.
-- $1 bigint: the user who makes the request; $2 text: title; $3 text: genre; $4 integer: year
with requester as (
    select id, is_active, username
    from users
    where id = $1::bigint
), created as (
    insert into movies (title, genre, year, creator_id)
    select $2::text, $3::text, $4::integer, id
    from requester
    where is_active
    returning id
)
select requester.is_active as user_is_active, created.id, requester.username as creator
from (select) as one_row
left join requester on true
left join created on true
