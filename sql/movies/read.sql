-- Returns one row for each input: whether the requesting user is active (null: no such user), the generation of the
-- user's valid tokens, and the movie with its creator's name (null: no such movie).
-- $1 bigint[]: requesting users; $2 bigint[]: movies
-- Uses users_id_key and movies_id_key.
-- `limit 1` changes no result: it makes the planner use the primary key, where it might join by reading the whole
-- table.
select
    input.ordinal,
    requester.is_active as user_is_active,
    requester.token_generation as current_generation,
    movie.id,
    movie.title,
    movie.genre,
    movie.year,
    movie.creator_id,
    coalesce(creator.username, requester.username) as creator
from unnest($1::bigint[], $2::bigint[]) with ordinality as input (user_id, movie_id, ordinal)
left join lateral (select * from users where id = input.user_id limit 1) as requester on true
left join lateral (select * from movies where id = input.movie_id limit 1) as movie on true
left join lateral (select * from users where id = nullif(movie.creator_id, input.user_id) limit 1) as creator on true;
