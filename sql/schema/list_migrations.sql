-- Returns the migrations that were applied, oldest first: the name of each file without its extension, its version, and
-- the checksum of its text at that time.
-- The table belongs to the migration library (refinery), which creates it before the first migration.
select format('V%s__%s', version, name) as name, version, checksum::text as checksum
from refinery_schema_history
order by version;
