-- Returns one page of the requesting user's own movies, newest first, each row with whether the user is active, the
-- generation of the user's valid tokens (null: no such user) and the number of all their movies. Past the last page
-- there is one row, whose movie is null.
-- $1 bigint: requesting user; $2 bigint: page number from 1, null for the last page; $3 bigint: movies on a page
-- Uses users_id_key; movie_count_ranges_key, to find the range of a long list in which the page begins; and
-- movies_by_creator alone for the movies, of which it skips those between the beginning of the range and the page.
with request as (
    select
        requester.is_active,
        requester.token_generation as current_generation,
        requester.username,
        requester.movie_count as total,
        (coalesce($2::bigint, greatest(1, (requester.movie_count + $3::bigint - 1) / $3::bigint)) - 1) * $3::bigint as skipped
    from (select) as one_row
    left join users as requester on requester.id = $1::bigint
), containing_range as (
    select counted.next_range_id, counted.newer_movies
    from (
        select
            lag(first_id) over newest_first as next_range_id,
            sum(movies) over newest_first - movies as newer_movies,
            movies
        from movie_count_ranges
        where creator_id = $1::bigint
        window newest_first as (order by first_id desc)
    ) as counted
    cross join request
    where counted.newer_movies <= request.skipped
      and request.skipped < counted.newer_movies + counted.movies
), page as (
    select movie.id, movie.title, movie.genre, movie.year
    from movies as movie
    where movie.creator_id = $1::bigint
      and movie.id < coalesce((select next_range_id from containing_range), 9223372036854775807)
      and (select skipped < total from request)
    order by movie.id desc
    limit $3::bigint
    offset (select skipped from request) - coalesce((select newer_movies from containing_range), 0)
)
select
    request.is_active as user_is_active,
    request.current_generation,
    request.total,
    page.id,
    page.title,
    page.genre,
    page.year,
    request.username as creator
from request
left join page on true
order by page.id desc;
