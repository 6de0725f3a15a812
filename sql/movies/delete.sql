-- Returns one row for each input: whether the requesting user is active (null: no such user), the generation of the
-- user's valid tokens, the movie's creator (null: no such movie), and the movie's id if this input deleted it. Deletes
-- the movie if the user is active, the token is of that generation, and the user is its creator.
-- $1 bigint[]: requesting users; $2 bigint[]: generations of their tokens; $3 bigint[]: movies
-- Uses users_id_key and movies_id_key.
-- `limit 1` changes no result: it makes the planner use the primary key, where it might join by reading the whole
-- table.
with input as materialized (
    select given.*, requester.is_active, requester.token_generation as current_generation
    from unnest($1::bigint[], $2::bigint[], $3::bigint[])
        with ordinality as given (user_id, token_generation, movie_id, ordinal)
    left join lateral (select * from users where id = given.user_id limit 1) as requester on true
), existing as (
    select input.ordinal, movie.creator_id
    from input
    cross join lateral (select creator_id from movies where id = input.movie_id limit 1) as movie
), deleted as (
    delete from movies as movie
    using input
    where movie.id = input.movie_id
      and movie.creator_id = input.user_id
      and input.is_active
      and input.current_generation = input.token_generation
    returning input.ordinal, movie.id
)
select
    input.ordinal,
    input.is_active as user_is_active,
    input.current_generation,
    existing.creator_id,
    deleted.id
from input
left join existing on existing.ordinal = input.ordinal
left join deleted on deleted.ordinal = input.ordinal;
