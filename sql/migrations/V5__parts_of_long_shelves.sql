-- Where the pages in the middle of a long shelf are, and a search there that looks at little.
--
-- A shelf of more than 2000 movies is kept count of in parts, so that a page is found by adding up the parts before it
-- instead of walking there movie by movie. A part holds the movies from its first id up to the next part's first id, and
-- the first part's is 0. One that has grown past 2000 is cut into parts of 1000. A shorter shelf has no parts.
--
-- Parts change under the lock that count_movies takes on the users whose movies it counts, and so stay exact.

create table shelf_parts (
    creator_id bigint not null,
    first_id   bigint not null,
    movies     integer not null,
    constraint shelf_parts_key primary key (creator_id, first_id),
    constraint shelf_parts_creator_exists foreign key (creator_id) references users (id) on delete cascade
) with (fillfactor = 50);

-- The functions that count keep their plans, which would read tables whole that were small when they were made, or are:
-- of a thousand users that alone took half a millisecond for each statement that adds movies.
alter function count_movies set enable_seqscan = off;

create function cut_shelf_part(shelf bigint, first bigint) returns void
language sql as $$
    insert into shelf_parts (creator_id, first_id, movies)
    select shelf, case when piece = 0 then first else min(id) end, count(*)
    from (
        select id, (row_number() over (order by id) - 1) / 1000 as piece
        from movies
        where creator_id = shelf
          and id >= first
          and id < (
              select coalesce(min(first_id), 9223372036854775807)
              from shelf_parts
              where creator_id = shelf and first_id > first
          )
    ) as counted
    group by piece
    on conflict on constraint shelf_parts_key do update set movies = excluded.movies;
$$;

create function count_in_parts(creators bigint[], ids bigint[], difference bigint) returns void
language plpgsql set enable_seqscan = off as $$
declare
    part record;
begin
    for part in
        update shelf_parts as kept
        set movies = kept.movies + changed.difference
        from (
            select holding.creator_id, holding.first_id, count(*) * count_in_parts.difference as difference
            from unnest(creators, ids) as movie (creator_id, id)
            cross join lateral (
                select held.creator_id, held.first_id
                from shelf_parts as held
                where held.creator_id = movie.creator_id and held.first_id <= movie.id
                order by held.first_id desc
                limit 1
            ) as holding
            group by holding.creator_id, holding.first_id
        ) as changed
        where kept.creator_id = changed.creator_id and kept.first_id = changed.first_id
        returning kept.creator_id, kept.first_id, kept.movies
    loop
        if part.movies > 2000 then
            perform cut_shelf_part(part.creator_id, part.first_id);
        end if;
    end loop;
    if difference > 0 then
        perform cut_shelf_part(id, 0)
        from users
        where id = any (creators)
          and movie_count > 2000
          and not exists (select from shelf_parts where creator_id = users.id);
    end if;
end
$$;

create or replace function count_inserted_movies() returns trigger
language plpgsql as $$
begin
    perform count_movies(array_agg(creator_id), array_agg(movies))
    from (select creator_id, count(*) as movies from inserted group by creator_id) as counted
    having count(*) > 0;
    perform count_in_parts(array_agg(creator_id), array_agg(id), 1) from inserted having count(*) > 0;
    return null;
end
$$;

create or replace function count_deleted_movies() returns trigger
language plpgsql as $$
begin
    perform count_movies(array_agg(creator_id), array_agg(-movies))
    from (select creator_id, count(*) as movies from deleted group by creator_id) as counted
    having count(*) > 0;
    perform count_in_parts(array_agg(creator_id), array_agg(id), -1) from deleted having count(*) > 0;
    return null;
end
$$;

create or replace function count_given_movie() returns trigger
language plpgsql as $$
begin
    if old.creator_id <> new.creator_id then
        perform count_movies(array[old.creator_id, new.creator_id], array[-1, 1]);
    else
        perform from users where id = new.creator_id for no key update;
    end if;
    perform count_in_parts(array[old.creator_id], array[old.id], -1);
    perform count_in_parts(array[new.creator_id], array[new.id], 1);
    return null;
end
$$;

create or replace function count_no_movies() returns trigger
language plpgsql as $$
begin
    update users set movie_count = 0 where movie_count <> 0;
    update movie_counts set movies = 0;
    delete from shelf_parts;
    return null;
end
$$;

-- A movie that changes its id may change its part.
drop trigger movies_given on movies;
create trigger movies_given after update of creator_id, id on movies
for each row when (old.creator_id <> new.creator_id or old.id <> new.id) execute function count_given_movie();

select cut_shelf_part(id, 0) from users where movie_count > 2000;

-- How many titles a pattern is expected to find: what the planner knows. Not stable, since EXPLAIN may not be.
create function expect_titles(title_pattern text) returns double precision
language plpgsql as $$
declare
    explained json;
begin
    execute 'explain (format json) select from movies where upper(title) like upper($1)'
        into explained using title_pattern;
    return explained -> 0 -> 'Plan' ->> 'Plan Rows';
end
$$;

-- The index movies_by_title knows a title's trigrams and whose movie it is. On a long shelf, to read there which movies
-- are its own costs more than a rare title does: then the title alone is looked up, and whose it is in the movie itself.
-- A movie of the shelf costs four nanoseconds in the one way, a title that is found a microsecond in the other.
create or replace function find_matching_movies(
    shelf bigint, -- whose movies; null for everybody's
    title_pattern text, -- LIKE patterns; % matches all
    genre_pattern text,
    creator_pattern text,
    first_year bigint,
    last_year bigint
) returns setof bigint
language plpgsql stable
set plan_cache_mode = force_custom_plan as $$
declare
    is_rare boolean := false;
begin
    if shelf is not null and title_pattern <> '%' then
        select expect_titles(title_pattern) * 250 < movie_count into is_rare
        from users
        where id = shelf;
    end if;
    return query
    select movie.id
    from movies as movie
    where (shelf is null or is_rare or movie.creator_id = shelf)
      and (not is_rare or movie.creator_id + 0 = shelf)
      and upper(movie.title) like upper(title_pattern)
      and upper(movie.genre) like upper(genre_pattern)
      and movie.year between first_year and last_year
      and case
          when creator_pattern = '%' then true
          else (select upper(username) like upper(creator_pattern) from users where id = movie.creator_id)
      end;
end
$$;
