-- Changes, question by question, a movie of the user who asks, if they are active and its creator; answers who asks,
-- whose the movie was, and the movie as it is now. A null field stays as it was. No two questions may be about one
-- movie: of these only one would be heard.
-- $1 bigint[]: the users who ask; $2 bigint[]: the movies; $3 text[]: titles; $4 text[]: genres; $5 integer[]: years
-- Rests on users_id_key and movies_id_key.
-- `limit 1` changes no answer: it keeps the planner on the key, where a join might read the whole table for a batch.
with asked as materialized (
    select question.*, requester.is_active, requester.username
    from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::integer[])
        with ordinality as question (user_id, movie_id, title, genre, year, ordinal)
    left join lateral (select * from users where id = question.user_id limit 1) as requester on true
), found as (
    select asked.ordinal, movie.creator_id
    from asked
    cross join lateral (select creator_id from movies where id = asked.movie_id limit 1) as movie
), changed as (
    update movies as movie
    set
        title = coalesce(asked.title, movie.title),
        genre = coalesce(asked.genre, movie.genre),
        year = coalesce(asked.year, movie.year),
        updated_at = now()
    from asked
    where movie.id = asked.movie_id
      and movie.creator_id = asked.user_id
      and asked.is_active
    returning asked.ordinal, movie.id, movie.title, movie.genre, movie.year
)
select
    asked.ordinal,
    asked.is_active as user_is_active,
    found.creator_id,
    changed.id,
    changed.title,
    changed.genre,
    changed.year,
    asked.username as creator
from asked
left join found on found.ordinal = asked.ordinal
left join changed on changed.ordinal = asked.ordinal;
