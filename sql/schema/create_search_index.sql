-- Makes the index that searches rest on: trigrams of the title, with whose movie it is, in one. It needs two
-- extensions of PostgreSQL's own contrib, which a database may not have or not allow; searches work without it.
-- An extension may be in a schema outside the search_path: the operator class is named with its schema, and nothing else
-- of the extensions is named anywhere.
-- V8__vacuum_and_pending_list.sql gives the reason for `fastupdate = off`, and sets it where the index is older.
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
