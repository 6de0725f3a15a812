-- Counts the ranges of all lists with more than 2000 movies anew.
delete from movie_count_ranges;
select cut_movie_count_range(creator_id, 0) from movies group by creator_id having count(*) > 2000;
