-- Answers who asks, how many of all movies match, and one page of these, in any order. A user who is there has one row at
-- least; its movie is null, and the count 0, past the end.
-- $1 bigint: the user who asks; $2 bigint: the page from 1, null for the last; $3 bigint: movies on a page
-- $4 text: LIKE pattern of the title; $5 text: of the genre; $6 text: of the creator's name; % matches all
-- $7 bigint: the lowest year; $8 bigint: the highest
-- Rests on users_id_key and find_page_of_matches, which finds its way by movies_by_title if a title is searched.
-- `limit 1` changes no answer: it keeps the planner on the key, where a join might read the whole table.
select
    requester.is_active as user_is_active,
    coalesce(found.total, 0) as total,
    found.id,
    found.title,
    found.genre,
    found.year,
    creator.username as creator
from users as requester
left join find_page_of_matches(
    null, $2::bigint, $3::bigint, $4::text, $5::text, $6::text, $7::bigint, $8::bigint
) as found on true
left join lateral (select username from users where id = found.creator_id limit 1) as creator on true
where requester.id = $1::bigint;
