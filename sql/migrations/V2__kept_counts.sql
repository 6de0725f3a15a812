-- How many movies there are, kept by the database itself: counting a shelf costs the same whatever its size.
--
-- A trigger per statement, not per row: an import of a million rows touches each counter once. Counters are locked
-- in the order of their users, so that statements which count for several users cannot wait for each other in a
-- circle. The count of all movies is spread over slots, so that writers of different users do not queue for one row;
-- a slot is always locked last.

alter table users add column movie_count bigint not null default 0;
-- Room on each page for the next version of a row whose count changed, without touching an index.
alter table users set (fillfactor = 80);

create table movie_counts (
    slot   integer not null,
    movies bigint  not null default 0,
    constraint movie_counts_slot_key primary key (slot)
) with (fillfactor = 20);

insert into movie_counts (slot) select generate_series(0, 15);

create function count_movies(creators bigint[], difference bigint[]) returns void
language plpgsql as $$
begin
    perform from users where id = any (creators) order by id for no key update;
    update users
    set movie_count = movie_count + counted.difference
    from unnest(creators, difference) as counted (creator_id, difference)
    where users.id = counted.creator_id;
    update movie_counts
    set movies = movies + (select coalesce(sum(each), 0) from unnest(difference) as each)
    where slot = pg_backend_pid() % 16;
end
$$;

create function count_inserted_movies() returns trigger
language plpgsql as $$
begin
    perform count_movies(array_agg(creator_id), array_agg(movies))
    from (select creator_id, count(*) as movies from inserted group by creator_id) as counted
    having count(*) > 0;
    return null;
end
$$;

create function count_deleted_movies() returns trigger
language plpgsql as $$
begin
    perform count_movies(array_agg(creator_id), array_agg(-movies))
    from (select creator_id, count(*) as movies from deleted group by creator_id) as counted
    having count(*) > 0;
    return null;
end
$$;

create function count_given_movie() returns trigger
language plpgsql as $$
begin
    perform count_movies(array[old.creator_id, new.creator_id], array[-1, 1]);
    return null;
end
$$;

create function count_no_movies() returns trigger
language plpgsql as $$
begin
    update users set movie_count = 0 where movie_count <> 0;
    update movie_counts set movies = 0;
    return null;
end
$$;

create trigger movies_inserted after insert on movies
referencing new table as inserted
for each statement execute function count_inserted_movies();

create trigger movies_deleted after delete on movies
referencing old table as deleted
for each statement execute function count_deleted_movies();

create trigger movies_given after update of creator_id on movies
for each row when (old.creator_id <> new.creator_id) execute function count_given_movie();

create trigger movies_truncated after truncate on movies
for each statement execute function count_no_movies();

update users
set movie_count = counted.movies
from (select creator_id, count(*) as movies from movies group by creator_id) as counted
where users.id = counted.creator_id;

update movie_counts set movies = (select count(*) from movies) where slot = 0;
