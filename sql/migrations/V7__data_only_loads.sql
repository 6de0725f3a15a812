-- Makes `pg_dump --data-only` of one migrated database load into another, with the kept counts right afterwards.
--
-- Without this the load fails, since pg_dump empties search_path and the functions that triggers call found their
-- tables by it. And where it does not fail it counts twice, since a dump brings the kept counts (users.movie_count,
-- movie_counts, shelf_parts) and the triggers on movies count what they see. So the counts are the triggers' alone: a
-- row that is inserted brings none.
--
-- A restore of schema and data together makes triggers last, so none of these fires and the counts of the dump stay. The
-- same holds for `--disable-triggers`; `movies-api recount` puts right what a load of some tables leaves wrong.

-- A new user has no movies; those that are loaded later are counted as they come.
create function start_movie_count() returns trigger
language plpgsql as $$
begin
    new.movie_count := 0;
    return new;
end
$$;

create trigger users_inserted before insert on users
for each row when (new.movie_count <> 0) execute function start_movie_count();

-- The slots are there already in a migrated database, and missing in one whose schema came from pg_dump.
create function start_movie_counts_slot() returns trigger
language plpgsql as $$
begin
    if exists (select from movie_counts where slot = new.slot) then
        return null;
    end if;
    new.movies := 0;
    return new;
end
$$;

create trigger movie_counts_inserted before insert on movie_counts
for each row execute function start_movie_counts_slot();

-- Parts depend on the order in which movies came, so those of a dump need not fit those that the triggers made of the
-- same movies. Only cut_shelf_part inserts them: a setting of its own tells its rows from others.
create function skip_row() returns trigger
language plpgsql as $$
begin
    return null;
end
$$;

create trigger shelf_parts_inserted before insert on shelf_parts
for each row when (current_setting('movies_api.cuts_shelf_parts', true) is distinct from 'on') execute function skip_row();

-- The setting is set and unset by the function's own statements: only a superuser may attach one to a function.
create or replace function cut_shelf_part(shelf bigint, first bigint) returns void
language sql as $$
    select set_config('movies_api.cuts_shelf_parts', 'on', true);
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
    select set_config('movies_api.cuts_shelf_parts', 'off', true);
$$;

-- The table is the migration library's. A dump of the same schema brings the rows that are there; any other row still
-- violates the key, which says that the schemas differ.
create function skip_known_migration() returns trigger
language plpgsql as $$
begin
    if exists (
        select from refinery_schema_history
        where version = new.version and name = new.name and checksum = new.checksum
    ) then
        return null;
    end if;
    return new;
end
$$;

create trigger refinery_schema_history_inserted before insert on refinery_schema_history
for each row execute function skip_known_migration();

-- The schema is that of the tables, which need not be public: the role's or the session's search_path decides where
-- the first migration makes them. pg_temp is named to come last, where it would else come first.
do $$
declare
    home regnamespace := (select relnamespace from pg_class where oid = 'movies'::regclass);
    routine regprocedure;
begin
    for routine in
        select oid
        from pg_proc
        where pronamespace = home
          and proname in (
              'count_movies', 'count_inserted_movies', 'count_deleted_movies', 'count_given_movie', 'count_no_movies',
              'cut_shelf_part', 'count_in_parts', 'expect_titles', 'find_matching_movies', 'find_page_of_matches',
              'start_movie_count', 'start_movie_counts_slot', 'skip_row', 'skip_known_migration'
          )
    loop
        execute format('alter function %s set search_path = %s, pg_temp', routine, home);
    end loop;
end
$$;
