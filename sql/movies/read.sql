-- Answers, question by question, who asks and the movie; what is not there is null.
-- $1 bigint[]: the users who ask; $2 bigint[]: the movies they ask for
-- Rests on users_id_key and movies_id_key.
select
    asked.place,
    asker.is_active as asker_is_active,
    movie.id,
    movie.title,
    movie.genre,
    movie.year,
    movie.creator_id,
    creator.username as creator
from unnest($1::bigint[], $2::bigint[]) with ordinality as asked (user_id, movie_id, place)
left join users as asker on asker.id = asked.user_id
left join movies as movie on movie.id = asked.movie_id
left join users as creator on creator.id = movie.creator_id;
