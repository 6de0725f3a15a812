-- Returns one row for each input: whether the requesting user is active (null: no such user), the generation of the
-- user's valid tokens, the movie's creator before the statement (null: no such movie), the changed movie (null unless
-- this input changed it), and the user's name. Changes the movie if the user is active, the token is of that
-- generation, and the user is its creator. A field given as null stays as it is. The inputs must name different movies:
-- of several inputs for one movie only one would be applied.
-- $1 bigint[]: requesting users; $2 bigint[]: generations of their tokens; $3 bigint[]: movies; $4 text[]: titles;
-- $5 text[]: genres; $6 integer[]: years
-- Uses users_id_key and movies_id_key.
-- `limit 1` changes no result: it makes the planner use the primary key, where it might join by reading the whole
-- table.
with input as materialized (
    select given.*, requester.is_active, requester.token_generation as current_generation, requester.username
    from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::integer[])
        with ordinality as given (user_id, token_generation, movie_id, title, genre, year, ordinal)
    left join lateral (select * from users where id = given.user_id limit 1) as requester on true
), existing as (
    select input.ordinal, movie.creator_id
    from input
    cross join lateral (select creator_id from movies where id = input.movie_id limit 1) as movie
), changed as (
    update movies as movie
    set
        title = coalesce(input.title, movie.title),
        genre = coalesce(input.genre, movie.genre),
        year = coalesce(input.year, movie.year),
        updated_at = now()
    from input
    where movie.id = input.movie_id
      and movie.creator_id = input.user_id
      and input.is_active
      and input.current_generation = input.token_generation
    returning input.ordinal, movie.id, movie.title, movie.genre, movie.year
)
select
    input.ordinal,
    input.is_active as user_is_active,
    input.current_generation,
    existing.creator_id,
    changed.id,
    changed.title,
    changed.genre,
    changed.year,
    input.username as creator
from input
left join existing on existing.ordinal = input.ordinal
left join changed on changed.ordinal = input.ordinal;
