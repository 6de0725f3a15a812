-- Returns one page of all users' movies that match a search, in any order, each row with whether the requesting user is
-- active, the generation of the user's valid tokens and the number of all matches. Past the last page there is one row,
-- whose movie is null and whose count is 0. No row if the user does not exist.
-- $1 bigint: requesting user; $2 bigint: page number from 1, null for the last page; $3 bigint: movies on a page
-- $4, $5, $6 text: LIKE patterns of the title, the genre and the creator's username; % matches everything
-- $7 bigint: the first year; $8 bigint: the last year
-- Uses users_id_key and find_page_of_matches, which uses movies_by_title if a title is searched.
-- `limit 1` changes no result: it makes the planner use the primary key, where it might join by reading the whole
-- table.
select
    requester.is_active as user_is_active,
    requester.token_generation as current_generation,
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
