-- Answers, question by question, who asks and the movie; what is not there is null.
-- $1 bigint[]: the users who ask; $2 bigint[]: the movies they ask for
-- Rests on users_id_key and movies_id_key.
-- `limit 1` changes no answer: it keeps the planner on the key, where a join might read the whole table for a batch.
select
    asked.ordinal,
    requester.is_active as user_is_active,
    movie.id,
    movie.title,
    movie.genre,
    movie.year,
    movie.creator_id,
    coalesce(creator.username, requester.username) as creator
from unnest($1::bigint[], $2::bigint[]) with ordinality as asked (user_id, movie_id, ordinal)
left join lateral (select * from users where id = asked.user_id limit 1) as requester on true
left join lateral (select * from movies where id = asked.movie_id limit 1) as movie on true
left join lateral (select * from users where id = nullif(movie.creator_id, asked.user_id) limit 1) as creator on true;
