-- Returns one row: how many users and movies there are, how many of the kept counts differ from what the rows say, and
-- how many sequences would give out an id that is there.
-- Relies on movies_by_creator, by which movies are counted without a visit of the table.
with owned as materialized (
    select creator_id, count(*) as movies
    from movies
    group by creator_id
), part as (
    select
        kept.creator_id,
        kept.first_id,
        kept.movies as kept,
        (
            select count(*)
            from movies
            where creator_id = kept.creator_id
              and id >= kept.first_id
              and id < kept.next_first_id
        ) as movies
    from (
        select *, lead(first_id, 1, 9223372036854775807) over (partition by creator_id order by first_id) as next_first_id
        from shelf_parts
    ) as kept
), parted as (
    select creator_id, bool_or(kept <> movies or movies > 2000) or min(first_id) <> 0 as is_wrong
    from part
    group by creator_id
), totals as (
    select
        (select coalesce(sum(movies), 0) from owned)::bigint as movies,
        (select coalesce(sum(movies), 0) from movie_counts)::bigint as kept
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
    totals.kept as kept_total,
    (
        select count(*)
        from owned
        full join parted using (creator_id)
        where coalesce(parted.is_wrong, owned.movies > 2000)
    ) as wrong_lists,
    (
        select count(*)
        from (
            values ('users', (select max(id) from users)), ('movies', (select max(id) from movies))
        ) as filled (table_name, last_id)
        left join pg_sequences as given
            on format('%I.%I', given.schemaname, given.sequencename) = pg_get_serial_sequence(filled.table_name, 'id')
        where filled.last_id > coalesce(given.last_value, 0)
    ) as sequences_behind
from totals;
