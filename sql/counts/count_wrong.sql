-- Returns one row: the numbers of users and movies, the maintained number of movies, how many users and long lists have
-- wrong counts, and how many sequences would give out an existing id.
-- Uses movies_by_creator alone to count movies.
with owned as materialized (
    select creator_id, count(*) as movies
    from movies
    group by creator_id
), counted_range as (
    select
        bounded.creator_id,
        bounded.first_id,
        bounded.movies as maintained,
        (
            select count(*)
            from movies
            where creator_id = bounded.creator_id
              and id >= bounded.first_id
              and id < bounded.next_first_id
        ) as movies
    from (
        select *, lead(first_id, 1, 9223372036854775807) over (partition by creator_id order by first_id) as next_first_id
        from movie_count_ranges
    ) as bounded
), list_with_ranges as (
    select creator_id, bool_or(maintained <> movies or movies > 2000) or min(first_id) <> 0 as is_wrong
    from counted_range
    group by creator_id
), totals as (
    select
        (select coalesce(sum(movies), 0) from owned)::bigint as movies,
        (select coalesce(sum(movies), 0) from movie_counts)::bigint as maintained
)
select
    (select count(*) from users) as users,
    totals.movies,
    (
        select count(*)
        from users
        left join owned on owned.creator_id = users.id
        where users.movie_count <> coalesce(owned.movies, 0)
    ) as wrong_users,
    totals.maintained as kept_total,
    (
        select count(*)
        from owned
        full join list_with_ranges using (creator_id)
        where coalesce(list_with_ranges.is_wrong, owned.movies > 2000)
    ) as wrong_lists,
    (
        select count(*)
        from (
            values ('users', (select max(id) from users)), ('movies', (select max(id) from movies))
        ) as filled (table_name, last_id)
        left join pg_sequences as sequence
            on format('%I.%I', sequence.schemaname, sequence.sequencename) = pg_get_serial_sequence(filled.table_name, 'id')
        where filled.last_id > coalesce(sequence.last_value, 0)
    ) as sequences_behind
from totals;
