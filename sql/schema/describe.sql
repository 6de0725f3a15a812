-- Returns one row: the server's version and settings, the tables, extensions and indexes that exist, the tables, columns
-- and functions that statements use and that do not exist, and the privileges of the role. Changes nothing.
-- This text is ASCII, since the database may have an encoding that lacks other characters.
with tables as (
    select name, to_regclass(name) as id, string_to_array(columns, ' ') as columns
    from (
        values
            (
                'users',
                'id username password_hash email first_name last_name is_active date_joined movie_count token_generation'
            ),
            ('movies', 'id title genre year creator_id created_at updated_at'),
            ('movie_counts', 'slot movies'),
            ('movie_count_ranges', 'creator_id first_id movies'),
            ('blacklisted_tokens', 'token_id_digest expires_at'),
            ('refinery_schema_history', '')
    ) as required (name, columns)
), functions as (
    -- Those of triggers are left out: the server calls them without a privilege.
    select name, to_regproc(name) as id
    from unnest(array[
        'count_movies', 'count_movies_in_ranges', 'cut_movie_count_range', 'estimate_matching_titles',
        'find_matching_movies', 'find_page_of_matches'
    ]) as name
), absent as (
    select 'table ' || name as name
    from tables
    where id is null
    union all
    select format('column %s.%s', tables.name, column_name)
    from tables
    cross join unnest(columns) as column_name
    where id is not null
      and not exists (
          select from pg_attribute where attrelid = id and attname = column_name and not attisdropped
      )
    union all
    select 'function ' || name
    from functions
    where id is null
), present as (
    select tables.name, tables.id, class.relowner
    from tables
    join pg_class as class on class.oid = tables.id
), missing as (
    select 'execute on ' || name as privilege
    from functions
    where not has_function_privilege(id, 'execute')
    union all
    select format('%s on %s', privilege, name)
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
    array(select name from absent order by name) as missing_objects,
    array(select privilege from missing order by privilege) as missing_privileges;
