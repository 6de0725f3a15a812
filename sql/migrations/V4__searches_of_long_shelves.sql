-- The movies that a search keeps, where there are many to look at: planned anew at each call, for the values at hand,
-- since the best way hangs on them: by the title's trigrams, where the pattern has some, else along the shelf. The
-- statement around a call is prepared once, and a short shelf, for which planning would cost most of the time, does
-- without the call.
create function find_matching_movies(
    shelf bigint, -- whose movies; null for everybody's
    title_pattern text, -- LIKE patterns; % matches all
    genre_pattern text,
    creator_pattern text,
    first_year bigint,
    last_year bigint
) returns setof bigint
language plpgsql stable
set plan_cache_mode = force_custom_plan as $$
begin
    return query
    select movie.id
    from movies as movie
    where (shelf is null or movie.creator_id = shelf)
      and upper(movie.title) like upper(title_pattern)
      and upper(movie.genre) like upper(genre_pattern)
      and movie.year between first_year and last_year
      and case
          when creator_pattern = '%' then true
          else (select upper(username) like upper(creator_pattern) from users where id = movie.creator_id)
      end;
end
$$;
