-- Answers who asks, how many movies there are, and one page of everybody's, newest first, walked to from the nearer
-- end. The first row is always there; its movie is null past the end.
-- $1 bigint: the user who asks; $2 bigint: the page from 1, null for the last; $3 bigint: movies on a page
-- Rests on users_id_key, movie_counts_slot_key and movies_id_key.
-- `limit 1` changes no answer: it keeps the planner on the key, where a join might read the whole table.
with counted as (
    select coalesce(sum(movies), 0)::bigint as total
    from movie_counts
), asked as (
    select
        requester.is_active,
        counted.total,
        (coalesce($2::bigint, greatest(1, (counted.total + $3::bigint - 1) / $3::bigint)) - 1) * $3::bigint as skipped
    from counted
    left join users as requester on requester.id = $1::bigint
), page as (
    (
        select movie.id, movie.title, movie.genre, movie.year, movie.creator_id
        from movies as movie
        where (select skipped <= total / 2 from asked)
        order by movie.id desc
        limit $3::bigint
        offset (select skipped from asked)
    )
    union all
    (
        select movie.id, movie.title, movie.genre, movie.year, movie.creator_id
        from movies as movie
        where (select skipped > total / 2 from asked)
        order by movie.id
        limit (select least($3::bigint, greatest(0, total - skipped)) from asked)
        offset (select greatest(0, total - skipped - $3::bigint) from asked)
    )
)
select
    asked.is_active as user_is_active,
    asked.total,
    page.id,
    page.title,
    page.genre,
    page.year,
    creator.username as creator
from asked
left join page on true
left join lateral (select username from users where id = page.creator_id limit 1) as creator on true
order by page.id desc;
