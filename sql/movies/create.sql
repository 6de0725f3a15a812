-- Makes, question by question, a movie of the user who asks, if they are active; answers who asks and the new id.
-- $1 bigint[]: the users who ask; $2 text[]: titles; $3 text[]: genres; $4 integer[]: years
-- Rests on users_id_key. The ids are drawn first, since an insert does not say which question a row came from.
-- `limit 1` changes no answer: it keeps the planner on the key, where a join might read the whole table for a batch.
with asked as materialized (
    select
        question.*,
        requester.is_active,
        requester.username,
        case when requester.is_active then nextval('movies_id_seq') end as id
    from unnest($1::bigint[], $2::text[], $3::text[], $4::integer[])
        with ordinality as question (user_id, title, genre, year, ordinal)
    left join lateral (select * from users where id = question.user_id limit 1) as requester on true
), created as (
    insert into movies (id, title, genre, year, creator_id)
    select id, title, genre, year, user_id
    from asked
    where is_active
)
select ordinal, is_active as user_is_active, id, username as creator
from asked;
