-- Deletes, question by question, a movie of the user who asks, if they are active and its creator; answers who asks,
-- whose the movie was, and its id if it is gone by this question.
-- $1 bigint[]: the users who ask; $2 bigint[]: the movies
-- Rests on users_id_key and movies_id_key.
-- `limit 1` changes no answer: it keeps the planner on the key, where a join might read the whole table for a batch.
with asked as materialized (
    select question.*, requester.is_active
    from unnest($1::bigint[], $2::bigint[]) with ordinality as question (user_id, movie_id, ordinal)
    left join lateral (select * from users where id = question.user_id limit 1) as requester on true
), found as (
    select asked.ordinal, movie.creator_id
    from asked
    cross join lateral (select creator_id from movies where id = asked.movie_id limit 1) as movie
), deleted as (
    delete from movies as movie
    using asked
    where movie.id = asked.movie_id
      and movie.creator_id = asked.user_id
      and asked.is_active
    returning asked.ordinal, movie.id
)
select
    asked.ordinal,
    asked.is_active as user_is_active,
    found.creator_id,
    deleted.id
from asked
left join found on found.ordinal = asked.ordinal
left join deleted on deleted.ordinal = asked.ordinal;
