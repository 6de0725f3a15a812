-- Reads one movie: the simplest statement that does what sql/movies/read.sql does for one request.
-- $1 bigint: the user who makes the request; $2 bigint: the movie
select
    requester.is_active as user_is_active,
    movie.id,
    movie.title,
    movie.genre,
    movie.year,
    movie.creator_id,
    creator.username as creator
from (select) as one_row
left join users as requester on requester.id = $1::bigint
left join movies as movie on movie.id = $2::bigint
left join users as creator on creator.id = movie.creator_id
