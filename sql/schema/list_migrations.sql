-- Returns the migrations that were applied, each named as its file and with the checksum of its text then, in their order.
-- The table is the migration library's own, and is there once a first migration ran.
select format('V%s__%s', version, name) as name, version, checksum::text as checksum
from refinery_schema_history
order by version;
