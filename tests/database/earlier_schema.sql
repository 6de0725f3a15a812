-- A database of the version before V1__initial_schema: `pg_dump --schema-only` of what its migrations V1 to V8 made, their
-- rows in refinery_schema_history, and some users and movies, which the triggers count. User 2 has more than 2000 movies,
-- which are counted in ranges (shelf_parts). Run it on an empty database.

set check_function_bodies = off;
set search_path = '';

CREATE EXTENSION IF NOT EXISTS btree_gin WITH SCHEMA public;

CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;

CREATE FUNCTION public.count_deleted_movies() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
begin
    perform count_movies(array_agg(creator_id), array_agg(-movies))
    from (select creator_id, count(*) as movies from deleted group by creator_id) as counted
    having count(*) > 0;
    perform count_in_parts(array_agg(creator_id), array_agg(id), -1) from deleted having count(*) > 0;
    return null;
end
$$;

CREATE FUNCTION public.count_given_movie() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
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

CREATE FUNCTION public.count_in_parts(creators bigint[], ids bigint[], difference bigint) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET search_path TO 'public', 'pg_temp'
    AS $$
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

CREATE FUNCTION public.count_inserted_movies() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
begin
    perform count_movies(array_agg(creator_id), array_agg(movies))
    from (select creator_id, count(*) as movies from inserted group by creator_id) as counted
    having count(*) > 0;
    perform count_in_parts(array_agg(creator_id), array_agg(id), 1) from inserted having count(*) > 0;
    return null;
end
$$;

CREATE FUNCTION public.count_movies(creators bigint[], difference bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET search_path TO 'public', 'pg_temp'
    AS $$
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

CREATE FUNCTION public.count_no_movies() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
begin
    update users set movie_count = 0 where movie_count <> 0;
    update movie_counts set movies = 0;
    delete from shelf_parts;
    return null;
end
$$;

CREATE FUNCTION public.cut_shelf_part(shelf bigint, first bigint) RETURNS void
    LANGUAGE sql
    SET search_path TO 'public', 'pg_temp'
    AS $$
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

CREATE FUNCTION public.expect_titles(title_pattern text) RETURNS double precision
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $_$
declare
    explained json;
begin
    execute 'explain (format json) select from movies where upper(title) like upper($1)'
        into explained using title_pattern;
    return explained -> 0 -> 'Plan' ->> 'Plan Rows';
end
$_$;

CREATE FUNCTION public.find_matching_movies(shelf bigint, title_pattern text, genre_pattern text, creator_pattern text, first_year bigint, last_year bigint) RETURNS SETOF bigint
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_custom_plan'
    SET search_path TO 'public', 'pg_temp'
    AS $$
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

CREATE FUNCTION public.find_page_of_matches(shelf bigint, page_number bigint, page_size bigint, title_pattern text, genre_pattern text, creator_pattern text, first_year bigint, last_year bigint) RETURNS TABLE(id bigint, title character varying, genre character varying, year integer, creator_id bigint, total bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
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

CREATE FUNCTION public.skip_known_migration() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
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

CREATE FUNCTION public.skip_row() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
begin
    return null;
end
$$;

CREATE FUNCTION public.start_movie_count() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
begin
    new.movie_count := 0;
    return new;
end
$$;

CREATE FUNCTION public.start_movie_counts_slot() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
begin
    if exists (select from movie_counts where slot = new.slot) then
        return null;
    end if;
    new.movies := 0;
    return new;
end
$$;

CREATE TABLE public.movie_counts (
    slot integer NOT NULL,
    movies bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='20');

CREATE TABLE public.movies (
    id bigint NOT NULL,
    title character varying(100) NOT NULL,
    genre character varying(100) NOT NULL,
    year integer NOT NULL,
    creator_id bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT movies_id_positive CHECK ((id > 0))
)
WITH (autovacuum_vacuum_insert_threshold='2000', autovacuum_vacuum_insert_scale_factor='0.01', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_scale_factor='0.01');

ALTER TABLE public.movies ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.movies_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.refinery_schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);

CREATE TABLE public.shelf_parts (
    creator_id bigint NOT NULL,
    first_id bigint NOT NULL,
    movies integer NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE public.users (
    id bigint NOT NULL,
    username character varying(150) NOT NULL,
    password_hash character varying(255) NOT NULL,
    email character varying(254) NOT NULL,
    first_name character varying(150) DEFAULT ''::character varying NOT NULL,
    last_name character varying(150) DEFAULT ''::character varying NOT NULL,
    is_active boolean DEFAULT true NOT NULL,
    date_joined timestamp with time zone DEFAULT now() NOT NULL,
    movie_count bigint DEFAULT 0 NOT NULL,
    CONSTRAINT users_id_positive CHECK ((id > 0))
)
WITH (fillfactor='80');

ALTER TABLE public.users ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.users_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.movie_counts
    ADD CONSTRAINT movie_counts_slot_key PRIMARY KEY (slot);

ALTER TABLE ONLY public.movies
    ADD CONSTRAINT movies_id_key PRIMARY KEY (id);

ALTER TABLE ONLY public.refinery_schema_history
    ADD CONSTRAINT refinery_schema_history_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.shelf_parts
    ADD CONSTRAINT shelf_parts_key PRIMARY KEY (creator_id, first_id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_id_key PRIMARY KEY (id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_username_unique UNIQUE (username);

CREATE INDEX movies_by_creator ON public.movies USING btree (creator_id, id DESC) INCLUDE (title, genre, year);

CREATE INDEX movies_by_title ON public.movies USING gin (creator_id, upper((title)::text) public.gin_trgm_ops) WITH (fastupdate=off);

CREATE UNIQUE INDEX users_email_unique ON public.users USING btree (email) WHERE ((email)::text <> ''::text);

CREATE TRIGGER movie_counts_inserted BEFORE INSERT ON public.movie_counts FOR EACH ROW EXECUTE FUNCTION public.start_movie_counts_slot();

CREATE TRIGGER movies_deleted AFTER DELETE ON public.movies REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION public.count_deleted_movies();

CREATE TRIGGER movies_given AFTER UPDATE OF creator_id, id ON public.movies FOR EACH ROW WHEN (((old.creator_id <> new.creator_id) OR (old.id <> new.id))) EXECUTE FUNCTION public.count_given_movie();

CREATE TRIGGER movies_inserted AFTER INSERT ON public.movies REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION public.count_inserted_movies();

CREATE TRIGGER movies_truncated AFTER TRUNCATE ON public.movies FOR EACH STATEMENT EXECUTE FUNCTION public.count_no_movies();

CREATE TRIGGER refinery_schema_history_inserted BEFORE INSERT ON public.refinery_schema_history FOR EACH ROW EXECUTE FUNCTION public.skip_known_migration();

CREATE TRIGGER shelf_parts_inserted BEFORE INSERT ON public.shelf_parts FOR EACH ROW WHEN ((current_setting('movies_api.cuts_shelf_parts'::text, true) IS DISTINCT FROM 'on'::text)) EXECUTE FUNCTION public.skip_row();

CREATE TRIGGER users_inserted BEFORE INSERT ON public.users FOR EACH ROW WHEN ((new.movie_count <> 0)) EXECUTE FUNCTION public.start_movie_count();

ALTER TABLE ONLY public.movies
    ADD CONSTRAINT movies_creator_exists FOREIGN KEY (creator_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.shelf_parts
    ADD CONSTRAINT shelf_parts_creator_exists FOREIGN KEY (creator_id) REFERENCES public.users(id) ON DELETE CASCADE;

insert into public.refinery_schema_history (version, name, applied_on, checksum) values
    (1, 'users_and_movies', '2026-11-26T18:32:48.349012765Z', '1135358321560173036'),
    (2, 'kept_counts', '2026-11-26T18:32:48.349017032Z', '3109046044556680663'),
    (3, 'blank_addresses', '2026-11-26T18:32:48.349018063Z', '1056482956635496701'),
    (4, 'searches_of_long_shelves', '2026-11-26T18:32:48.349019145Z', '11150504882602983707'),
    (5, 'parts_of_long_shelves', '2026-11-26T18:32:48.349019886Z', '6023267009151337711'),
    (6, 'pages_of_searches', '2026-11-26T18:32:48.349021619Z', '1360539863756439673'),
    (7, 'data_only_loads', '2026-11-26T18:32:48.34902228Z', '10238690045092338921'),
    (8, 'vacuum_and_pending_list', '2026-11-26T18:32:48.349022991Z', '16316943782683263706');

insert into public.movie_counts (slot) select pg_catalog.generate_series(0, 15);

insert into public.users (username, password_hash, email, first_name, last_name, is_active) values
    ('ann', '!', 'ann@example.com', 'Ann', '', true),
    ('bob', '!', '', '', 'Builder', true),
    ('eve', '!', '', '', '', false);

insert into public.movies (title, genre, year, creator_id)
select 'Film ' || n, 'Drama', 1900 + n % 100, case when n % 10 = 0 then 1 else 2 end
from pg_catalog.generate_series(1, 5000) as n;

-- Thins a range, and gives one movie to another user.
delete from public.movies where id between 100 and 300;
update public.movies set creator_id = 3 where id = 4000;
