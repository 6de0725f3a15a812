-- Deletes, question by question, a movie of the user who asks, if they are active and its creator; answers who asks,
-- whose the movie was, and its id if it is gone by this question.
-- $1 bigint[]: the users who ask; $2 bigint[]: the movies
-- Rests on users_id_key and movies_id_key.
with asked as materialized (
    select question.*, asker.is_active
    from unnest($1::bigint[], $2::bigint[]) with ordinality as question (user_id, movie_id, place)
    left join users as asker on asker.id = question.user_id
), found as (
    select asked.place, movie.creator_id
    from asked
    join movies as movie on movie.id = asked.movie_id
), deleted as (
    delete from movies as movie
    using asked
    where movie.id = asked.movie_id
      and movie.creator_id = asked.user_id
      and asked.is_active
    returning asked.place, movie.id
)
select
    asked.place,
    asked.is_active as asker_is_active,
    found.creator_id,
    deleted.id
from asked
left join found on found.place = asked.place
left join deleted on deleted.place = asked.place;
