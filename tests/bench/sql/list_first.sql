-- The first page of one list: the simplest statement that does what sql/movies/list_first.sql does for one request.
-- $1 bigint: the user who makes the request; $2 bigint: movies per page
select
    requester.is_active as user_is_active,
    requester.movie_count as total,
    page.id,
    page.title,
    page.genre,
    page.year,
    requester.username as creator
from (select) as one_row
left join users as requester on requester.id = $1::bigint
left join lateral (
    select movie.id, movie.title, movie.genre, movie.year
    from movies as movie
    where movie.creator_id = $1::bigint
    order by movie.id desc
    limit $2::bigint
) as page on true
order by page.id desc
