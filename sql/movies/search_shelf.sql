-- Answers who asks, how many of their movies match, and one page of these, newest first. The first row is always there;
-- its movie is null past the end.
-- $1 bigint: the user who asks; $2 bigint: the page from 1, null for the last; $3 bigint: movies on a page
-- $4 text: LIKE pattern of the title; $5 text: of the genre; $6 text: of the creator's name; % matches all
-- $7 bigint: the lowest year; $8 bigint: the highest
-- Rests on users_id_key and movies_by_creator, which is read along a short shelf; on a long one find_matching_movies
-- finds its way, by movies_by_title if a title is searched; the `or` beside the title keeps a short shelf from that index,
-- which would be slower. `limit 1` changes no answer: it keeps the planner on the key.
with asker as materialized (
    select is_active, username, movie_count
    from users
    where id = $1::bigint
), matching as materialized (
    select movie.id
    from movies as movie
    where (select movie_count <= 1000 and upper(username) like upper($6::text) from asker)
      and movie.creator_id = $1::bigint
      and movie.year between $7::bigint and $8::bigint
      and ($4::text = '%' or upper(movie.title) like (select upper($4::text)))
      and ($5::text = '%' or upper(movie.genre) like (select upper($5::text)))
    union all
    select found.id
    from find_matching_movies($1::bigint, $4::text, $5::text, '%', $7::bigint, $8::bigint) as found (id)
    where (select movie_count > 1000 and upper(username) like upper($6::text) from asker)
), asked as (
    select
        counted.total,
        (coalesce($2::bigint, greatest(1, (counted.total + $3::bigint - 1) / $3::bigint)) - 1) * $3::bigint as skipped
    from (select count(*) as total from matching) as counted
), page as (
    select id
    from matching
    order by id desc
    limit $3::bigint
    offset (select skipped from asked)
)
select
    asker.is_active as asker_is_active,
    asked.total,
    movie.id,
    movie.title,
    movie.genre,
    movie.year,
    asker.username as creator
from asked
left join asker on true
left join page on true
left join lateral (select * from movies where id = page.id limit 1) as movie on true
order by page.id desc;
