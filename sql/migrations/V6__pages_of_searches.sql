-- One page of the movies that a search keeps of many, newest first, each with how many match in all; nothing past the end.
-- Written out in search_shelf.sql, which calls it, it would make the search of a short shelf, which has no use for it, dearer by
-- a third: the executor prepares what it does not run.
-- Rests on find_matching_movies. `limit 1` changes no answer: it keeps the planner on the key.
create function find_page_of_matches(
    shelf bigint, -- whose movies; null for everybody's
    page_number bigint, -- from 1; null for the last
    page_size bigint,
    title_pattern text, -- LIKE patterns; % matches all
    genre_pattern text,
    creator_pattern text,
    first_year bigint,
    last_year bigint
) returns table (id bigint, title varchar, genre varchar, year integer, creator_id bigint, total bigint)
language plpgsql stable as $$
#variable_conflict use_column
begin
    return query
    with matching as materialized (
        select found.id
        from find_matching_movies(
            shelf, title_pattern, genre_pattern, creator_pattern, first_year, last_year
        ) as found (id)
    ), counted as (
        select count(*) as total from matching
    ), page as (
        select matching.id
        from matching
        order by matching.id desc
        limit page_size
        offset (select coalesce(page_number - 1, greatest(0, counted.total - 1) / page_size) * page_size from counted)
    )
    select movie.id, movie.title, movie.genre, movie.year, movie.creator_id, counted.total
    from page
    cross join counted
    cross join lateral (select * from movies where movies.id = page.id limit 1) as movie
    order by movie.id desc;
end
$$;
