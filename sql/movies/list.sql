-- Answers who asks, how many movies they may read, and one page of these, newest first. The first row is always
-- there; its movie is null on an empty page.
-- $1 bigint: the user who asks; $2 bigint: whose movies, null for everybody's; $3 bigint: the page from 1, null for
-- the last; $4 bigint: movies on a page
-- Rests on users_id_key and movies_by_creator, for everybody's movies on movies_id_key.
with asker as (
    select is_active
    from users
    where id = $1::bigint
), total as (
    select count(*) as movies
    from movies
    where $2::bigint is null or creator_id = $2::bigint
), page as (
    select movie.id, movie.title, movie.genre, movie.year, creator.username as creator
    from movies as movie
    join users as creator on creator.id = movie.creator_id
    where $2::bigint is null or movie.creator_id = $2::bigint
    order by movie.id desc
    limit $4::bigint
    offset (
        select (coalesce($3::bigint, greatest(1, (total.movies + $4::bigint - 1) / $4::bigint)) - 1) * $4::bigint
        from total
    )
)
select
    asker.is_active as asker_is_active,
    total.movies as total,
    page.id,
    page.title,
    page.genre,
    page.year,
    page.creator
from total
left join asker on true
left join page on true
order by page.id desc;
