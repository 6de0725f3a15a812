-- Records one migration in place of those of an earlier version. Returns nothing.
-- $1 text: the migration's name; $2 text: its checksum
with removed as (
    delete from refinery_schema_history where version > 1
)
update refinery_schema_history
set name = $1::text, checksum = $2::text
where version = 1;
