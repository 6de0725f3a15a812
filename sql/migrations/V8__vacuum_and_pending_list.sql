-- Keeps searches quick while movies are added, and additions even.
--
-- A search and a first page read movies_by_creator alone, for rows on pages that a vacuum has marked as visible to all;
-- any other row is fetched from the table. After 100,000 creations on 100,000 movies without a vacuum, searches of lists
-- of 200 took 2.1 times as long as right after one, first pages 1.2 times, reads the same. By default PostgreSQL waits for
-- insertions of a fifth of the table, or dead rows of a fifth, which in a table of a million is never soon; one changed
-- row is enough to unmark its page, with a hundred movies on it. A vacuum looks only at unmarked pages: after 17,000
-- insertions it took 0.1 s.
--
-- users and movie_counts keep the defaults: of 100,000 updates of movie_count 99.7 % or more found room on their page
-- (fillfactor), and neither table grew.
alter table movies set (
    autovacuum_vacuum_insert_threshold = 2000,
    autovacuum_vacuum_insert_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.01
);

-- The index of trigrams would collect new titles in a list that is merged into it when it has grown to
-- gin_pending_list_limit, by the statement that comes then, while others wait. Creations by 32 clients on 100,000 movies, two
-- cores, six rounds of 3 s in turns, medians:
--
--     list           creations/s   p50 ms   p99 ms   p99 to p50
--     4 MB (default)       7,529      4.2     24.8          6.3
--     64 kB (least)        6,550      4.4     10.5          2.4 (2.2 to 4.2)
--     none                 5,820      5.6      9.1          1.6 (1.5 to 2.7)
--
-- Searches need not read the list either. create_search_index.sql sets this where the index is made later.
alter index if exists movies_by_title set (fastupdate = off);
select gin_clean_pending_list(to_regclass('movies_by_title'));
