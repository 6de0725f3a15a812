-- Creates the index for searches: the trigrams of each title together with the movie's creator. Returns nothing. Not a
-- migration, since it needs two extensions of PostgreSQL's contrib, which a database may lack or not allow: searches
-- work without it, and each start of the service tries again. The extensions may be in a schema outside search_path, so
-- the operator class is named with its schema; no other statement names anything of theirs.
--
-- fastupdate = off: with it, a GIN index collects new entries in a list, and the statement that finds the list longer
-- than gin_pending_list_limit merges it into the index while others wait. Creations by 32 clients on 100,000 movies,
-- two cores, six alternating rounds of 3 s, medians:
--
--     pending list       creations/s   p50 ms   p99 ms   p99 to p50
--     4 MB (default)           7,529      4.2     24.8          6.3
--     64 kB (minimum)          6,550      4.4     10.5          2.4 (2.2 to 4.2)
--     none                     5,820      5.6      9.1          1.6 (1.5 to 2.7)
--
-- Without the list, searches need not read it either.
create extension if not exists pg_trgm;
create extension if not exists btree_gin;
do $$
begin
    execute format(
        'create index if not exists movies_by_title on movies using gin (creator_id, upper(title) %s.gin_trgm_ops) '
        'with (fastupdate = off)',
        (select extnamespace::regnamespace from pg_extension where extname = 'pg_trgm')
    );
end
$$;
