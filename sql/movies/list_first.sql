-- Returns for each input the first page of the requesting user's own movies, newest first, each row with whether the
-- user is active (null: no such user), the generation of the user's valid tokens and the number of all their movies. An
-- input without movies has one row, whose movie is null.
-- $1 bigint[]: requesting users; $2 bigint[]: the number of movies on each page
-- Uses users_id_key, and movies_by_creator alone for the movies.
-- `limit 1` changes no result: it makes the planner use the primary key, where it might join by reading the whole
-- table.
select
    input.ordinal,
    requester.is_active as user_is_active,
    requester.token_generation as current_generation,
    requester.movie_count as total,
    page.id,
    page.title,
    page.genre,
    page.year,
    requester.username as creator
from unnest($1::bigint[], $2::bigint[]) with ordinality as input (user_id, size, ordinal)
left join lateral (select * from users where id = input.user_id limit 1) as requester on true
left join lateral (
    select movie.id, movie.title, movie.genre, movie.year
    from movies as movie
    where movie.creator_id = input.user_id
    order by movie.id desc
    limit input.size
) as page on true
order by input.ordinal, page.id desc;
