-- Answers, question by question, who asks, how many movies they have, and the newest of these; a question's first row
-- is always there, and its movie is null on an empty shelf.
-- $1 bigint[]: the users who ask; $2 bigint[]: how many movies each wants
-- Rests on users_id_key and movies_by_creator, which holds all that is answered.
-- `limit 1` changes no answer: it keeps the planner on the key, where a join might read the whole table for a batch.
select
    asked.ordinal,
    requester.is_active as user_is_active,
    requester.movie_count as total,
    page.id,
    page.title,
    page.genre,
    page.year,
    requester.username as creator
from unnest($1::bigint[], $2::bigint[]) with ordinality as asked (user_id, size, ordinal)
left join lateral (select * from users where id = asked.user_id limit 1) as requester on true
left join lateral (
    select movie.id, movie.title, movie.genre, movie.year
    from movies as movie
    where movie.creator_id = asked.user_id
    order by movie.id desc
    limit asked.size
) as page on true
order by asked.ordinal, page.id desc;
