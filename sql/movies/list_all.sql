-- Returns one page of all users' movies, newest first, each row with whether the requesting user is active (null: no
-- such user), the generation of the user's valid tokens and the number of all movies. Past the last page there is one
-- row, whose movie is null.
-- $1 bigint: requesting user; $2 bigint: page number from 1, null for the last page; $3 bigint: movies on a page
-- Uses users_id_key, movie_counts_slot_key and movies_id_key, from whose nearer end it skips to the page.
-- `limit 1` changes no result: it makes the planner use the primary key, where it might join by reading the whole
-- table.
with counted as (
    select coalesce(sum(movies), 0)::bigint as total
    from movie_counts
), request as (
    select
        requester.is_active,
        requester.token_generation as current_generation,
        counted.total,
        (coalesce($2::bigint, greatest(1, (counted.total + $3::bigint - 1) / $3::bigint)) - 1) * $3::bigint as skipped
    from counted
    left join users as requester on requester.id = $1::bigint
), page as (
    (
        select movie.id, movie.title, movie.genre, movie.year, movie.creator_id
        from movies as movie
        where (select skipped <= total / 2 from request)
        order by movie.id desc
        limit $3::bigint
        offset (select skipped from request)
    )
    union all
    (
        select movie.id, movie.title, movie.genre, movie.year, movie.creator_id
        from movies as movie
        where (select skipped > total / 2 from request)
        order by movie.id
        limit (select least($3::bigint, greatest(0, total - skipped)) from request)
        offset (select greatest(0, total - skipped - $3::bigint) from request)
    )
)
select
    request.is_active as user_is_active,
    request.current_generation,
    request.total,
    page.id,
    page.title,
    page.genre,
    page.year,
    creator.username as creator
from request
left join page on true
left join lateral (select username from users where id = page.creator_id limit 1) as creator on true
order by page.id desc;
