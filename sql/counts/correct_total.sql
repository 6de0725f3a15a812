-- Creates missing slots of movie_counts and makes the slots add up to the number of all movies.
insert into movie_counts (slot) select generate_series(0, 15) on conflict do nothing;
update movie_counts set movies = case slot when 0 then (select count(*) from movies) else 0 end;
