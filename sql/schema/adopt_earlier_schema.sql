-- Turns the schema of an earlier version, made by the migrations V1__users_and_movies to V8__vacuum_and_pending_list,
-- into that of V1__initial_schema.sql, except for functions and triggers: afterwards, in the same transaction, the end
-- of that file creates these (from the line "The part that is run again"), and replace_migration_history.sql records
-- it.
--  Changes no row. Waits at most 10 s for each lock, since all other statements on these tables wait behind this one.
set local lock_timeout = '10s';
lock table users, movies, movie_counts, shelf_parts, refinery_schema_history in access exclusive mode;

drop trigger movies_inserted on movies;
drop trigger movies_deleted on movies;
drop trigger movies_given on movies;
drop trigger movies_truncated on movies;
drop trigger users_inserted on users;
drop trigger movie_counts_inserted on movie_counts;
drop trigger shelf_parts_inserted on shelf_parts;
drop trigger refinery_schema_history_inserted on refinery_schema_history;

drop function
    count_movies, count_in_parts, cut_shelf_part,
    count_inserted_movies, count_deleted_movies, count_given_movie, count_no_movies,
    expect_titles, find_matching_movies, find_page_of_matches,
    start_movie_count, start_movie_counts_slot, skip_row, skip_known_migration;

alter table shelf_parts rename to movie_count_ranges;

-- From PostgreSQL 18 on, a column's `not null` is a constraint with a name, too.
do $$
declare
    old_name name;
begin
    for old_name in
        select conname
        from pg_constraint
        where conrelid = 'movie_count_ranges'::regclass and conname like 'shelf\_parts%'
    loop
        execute format(
            'alter table movie_count_ranges rename constraint %I to %I',
            old_name, replace(old_name, 'shelf_parts', 'movie_count_ranges')
        );
    end loop;
end
$$;
