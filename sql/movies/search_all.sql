-- Answers who asks, how many of all movies match, and one page of these, newest first. The first row is always there;
-- its movie is null past the end.
-- $1 bigint: the user who asks; $2 bigint: the page from 1, null for the last; $3 bigint: movies on a page
-- $4 text: LIKE pattern of the title; $5 text: of the genre; $6 text: of the creator's name; % matches all
-- $7 bigint: the lowest year; $8 bigint: the highest
-- Rests on users_id_key and find_matching_movies, which finds its way by movies_by_title if a title is searched.
-- `limit 1` changes no answer: it keeps the planner on the key, where a join might read the whole table.
with matching as materialized (
    select found.id
    from find_matching_movies(null, $4::text, $5::text, $6::text, $7::bigint, $8::bigint) as found (id)
), asked as (
    select
        asker.is_active,
        counted.total,
        (coalesce($2::bigint, greatest(1, (counted.total + $3::bigint - 1) / $3::bigint)) - 1) * $3::bigint as skipped
    from (select count(*) as total from matching) as counted
    left join users as asker on asker.id = $1::bigint
), page as (
    select id
    from matching
    order by id desc
    limit $3::bigint
    offset (select skipped from asked)
)
select
    asked.is_active as asker_is_active,
    asked.total,
    movie.id,
    movie.title,
    movie.genre,
    movie.year,
    creator.username as creator
from asked
left join page on true
left join lateral (select * from movies where id = page.id limit 1) as movie on true
left join lateral (select username from users where id = movie.creator_id limit 1) as creator on true
order by page.id desc;
