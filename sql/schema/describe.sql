-- Answers what the database is and has; changes nothing.
select
    current_setting('server_version') as version,
    current_setting('server_version_num')::integer as version_number,
    current_setting('server_encoding') as encoding,
    (select datctype::text from pg_database where datname = current_database()) as locale,
    upper('é') = 'É' as knows_letters,
    not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off' as is_writable,
    exists (select from pg_extension where extname = 'pg_trgm') as has_pg_trgm,
    exists (select from pg_extension where extname = 'btree_gin') as has_btree_gin,
    to_regclass('refinery_schema_history') is not null as has_history;
