-- Gives every user whose kept count is wrong the number of their movies.
update users
set movie_count = counted.movies
from (
    select users.id, count(movies.id) as movies
    from users
    left join movies on movies.creator_id = users.id
    group by users.id
) as counted
where users.id = counted.id
  and users.movie_count <> counted.movies;
