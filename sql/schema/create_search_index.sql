-- Makes the index that searches rest on: trigrams of the title, with whose movie it is, in one. It needs two
-- extensions of PostgreSQL's own contrib, which a database may not have or not allow; searches work without it.
-- V8__vacuum_and_pending_list.sql gives the reason for `fastupdate = off`, and sets it where the index is older.
create extension if not exists pg_trgm;
create extension if not exists btree_gin;
create index if not exists movies_by_title on movies using gin (creator_id, upper(title) gin_trgm_ops)
with (fastupdate = off);
