-- Changes one movie: the simplest statement that does what sql/movies/update.sql does for one request.
-- $1 bigint: the user who makes the request; $2 bigint: the movie; $3 text: title; $4 text: genre; $5 integer: year; null keeps the old value
with requester as (
    select is_active, username
    from users
    where id = $1::bigint
), found as (
    select creator_id
    from movies
    where id = $2::bigint
), changed as (
    update movies as movie
    set
        title = coalesce($3::text, movie.title),
        genre = coalesce($4::text, movie.genre),
        year = coalesce($5::integer, movie.year),
        updated_at = now()
    from requester
    where movie.id = $2::bigint
      and movie.creator_id = $1::bigint
      and requester.is_active
    returning movie.id, movie.title, movie.genre, movie.year
)
select
    requester.is_active as user_is_active,
    found.creator_id,
    changed.id,
    changed.title,
    changed.genre,
    changed.year,
    requester.username as creator
from (select) as one_row
left join requester on true
left join found on true
left join changed on true
