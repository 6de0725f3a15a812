-- Sets users.movie_count of each user for whom it differs from the number of their movies.
-- Uses movies_by_creator.
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
