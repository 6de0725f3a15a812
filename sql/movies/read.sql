-- Answers who asks and the movie, in one row; what is not there is null.
-- $1 bigint: the user who asks; $2 bigint: the movie
-- Rests on users_id_key and movies_id_key.
select
    asker.is_active as asker_is_active,
    movie.id,
    movie.title,
    movie.genre,
    movie.year,
    movie.creator_id,
    creator.username as creator
from (select $1::bigint as user_id, $2::bigint as movie_id) as asked
left join users as asker on asker.id = asked.user_id
left join movies as movie on movie.id = asked.movie_id
left join users as creator on creator.id = movie.creator_id;
