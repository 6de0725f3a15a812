-- Answers the migrations that were applied, each named as its file, in their order. The table is the migration
-- library's own, and is there once a first migration ran.
select format('V%s__%s', version, name) as name
from refinery_schema_history
order by version;
