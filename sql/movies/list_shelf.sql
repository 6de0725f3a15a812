-- Answers who asks, how many movies they have, and one page of these, newest first. The first row is always there; its
-- movie is null past the end.
-- $1 bigint: the user who asks; $2 bigint: the page from 1, null for the last; $3 bigint: movies on a page
-- Rests on users_id_key; on shelf_parts_key, by which the part of a long shelf is found that the page begins in; and on
-- movies_by_creator, which holds all that is answered.
with asked as (
    select
        requester.is_active,
        requester.username,
        requester.movie_count as total,
        (coalesce($2::bigint, greatest(1, (requester.movie_count + $3::bigint - 1) / $3::bigint)) - 1) * $3::bigint as skipped
    from (select) as one_row
    left join users as requester on requester.id = $1::bigint
), part as (
    select part.first_newer_id, part.newer
    from (
        select
            lag(first_id) over newest_first as first_newer_id,
            sum(movies) over newest_first - movies as newer,
            movies
        from shelf_parts
        where creator_id = $1::bigint
        window newest_first as (order by first_id desc)
    ) as part
    cross join asked
    where part.newer <= asked.skipped
      and asked.skipped < part.newer + part.movies
), page as (
    select movie.id, movie.title, movie.genre, movie.year
    from movies as movie
    where movie.creator_id = $1::bigint
      and movie.id < coalesce((select first_newer_id from part), 9223372036854775807)
      and (select skipped < total from asked)
    order by movie.id desc
    limit $3::bigint
    offset (select skipped from asked) - coalesce((select newer from part), 0)
)
select
    asked.is_active as user_is_active,
    asked.total,
    page.id,
    page.title,
    page.genre,
    page.year,
    asked.username as creator
from asked
left join page on true
order by page.id desc;
