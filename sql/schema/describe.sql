-- Returns one row: the server's version and settings, the tables, extensions and indexes that exist, and the privileges
-- of the role. Changes nothing.
-- This text is ASCII, since the database may have an encoding that lacks other characters.
with tables as (
    select name, to_regclass(name) as id
    from unnest(array[
        'users', 'movies', 'movie_counts', 'movie_count_ranges', 'blacklisted_tokens', 'refinery_schema_history'
    ]) as name
), present as (
    select tables.name, tables.id, class.relowner
    from tables
    join pg_class as class on class.oid = tables.id
), missing as (
    select format('%s on %s', privilege, name) as privilege
    from present
    cross join unnest(array['select', 'insert', 'update', 'delete']) as privilege
    where name <> 'refinery_schema_history'
      and not has_table_privilege(id, privilege)
    union all
    select 'usage on movies_id_seq'
    where not has_sequence_privilege(to_regclass('movies_id_seq'), 'usage')
)
select
    current_setting('server_version') as version,
    current_setting('server_version_num')::integer as version_number,
    current_setting('server_encoding') as encoding,
    (select datctype::text from pg_database where datname = current_database()) as locale,
    not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off' as is_writable,
    exists (select from pg_extension where extname = 'pg_trgm') as has_pg_trgm,
    exists (select from pg_extension where extname = 'btree_gin') as has_btree_gin,
    to_regclass('movies_by_title') is not null as has_search_index,
    to_regclass('refinery_schema_history') is not null as has_history,
    current_user::text as role,
    current_schema()::text as schema,
    current_setting('search_path') as search_path,
    coalesce(has_schema_privilege(current_schema(), 'create'), false) as may_create,
    array(select name from present where not pg_has_role(relowner, 'usage') order by name) as foreign_tables,
    array(select name from present where name <> 'refinery_schema_history' order by name) as tables,
    array(select privilege from missing order by privilege) as missing_privileges;
