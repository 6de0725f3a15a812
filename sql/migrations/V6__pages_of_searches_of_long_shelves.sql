-- One page of a search of a long shelf, newest first, each movie with how many match in all; nothing past the end.
-- Written out in the statement that calls it, it would make the search of a short shelf, which has no use for it, dearer by
-- a third: the executor prepares what it does not run.
-- Rests on find_matching_movies. `limit 1` changes no answer: it keeps the planner on the key.
create function search_long_shelf(
    shelf bigint, -- whose movies
    page_number bigint, -- from 1; null for the last
    page_size bigint,
    title_pattern text, -- LIKE patterns; % matches all
    genre_pattern text,
    first_year bigint,
    last_year bigint
) returns table (id bigint, title varchar, genre varchar, year integer, total bigint)
language plpgsql stable as $$
#variable_conflict use_column
begin
    return query
    with matching as materialized (
        select found.id
        from find_matching_movies(shelf, title_pattern, genre_pattern, '%', first_year, last_year) as found (id)
    ), counted as (
        select count(*) as total from matching
    ), page as (
        select matching.id
        from matching
        order by matching.id desc
        limit page_size
        offset (select coalesce(page_number - 1, greatest(0, counted.total - 1) / page_size) * page_size from counted)
    )
    select movie.id, movie.title, movie.genre, movie.year, counted.total
    from page
    cross join counted
    cross join lateral (select * from movies where movies.id = page.id limit 1) as movie
    order by movie.id desc;
end
$$;
