-- Sets up a transaction that reads a dump into temporary tables, which have the names and columns of the Django
-- application's tables, so that the other statements of the import find them instead. Has no time limit.
-- creator_username is the natural key of a movie's creator, in a dump made with --natural-foreign.
set local statement_timeout = 0;
set local lock_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
set local datestyle = 'ISO, YMD';
select set_config('search_path', format('pg_temp, %s', current_setting('search_path')), true);
create temporary table pg_temp.auth_user (
    id           bigint,
    username     text,
    password     text,
    email        text,
    first_name   text,
    last_name    text,
    is_active    boolean,
    date_joined  timestamptz
) on commit drop;
create temporary table pg_temp.movies_movie (
    id               bigint,
    title            text,
    genre            text,
    year             bigint,
    creator_id       bigint,
    creator_username text,
    created_at       timestamptz,
    updated_at       timestamptz
) on commit drop;
