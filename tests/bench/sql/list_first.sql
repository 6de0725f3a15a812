-- One question of the product's movies/list_first.sql, as plainly as it can be asked.
-- $1 bigint: the user who asks; $2 bigint: how many movies are wanted
select
    requester.is_active as user_is_active,
    requester.movie_count as total,
    page.id,
    page.title,
    page.genre,
    page.year,
    requester.username as creator
from (select) as asked
left join users as requester on requester.id = $1::bigint
left join lateral (
    select movie.id, movie.title, movie.genre, movie.year
    from movies as movie
    where movie.creator_id = $1::bigint
    order by movie.id desc
    limit $2::bigint
) as page on true
order by page.id desc
