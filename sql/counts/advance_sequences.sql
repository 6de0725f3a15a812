-- Lets new ids go on past those that are there, where rows came with ids of their own and the sequence was left behind;
-- none is moved back. Returns how many were moved.
select count(setval(pg_get_serial_sequence(filled.table_name, 'id')::regclass, filled.last_id)) as moved
from (
    values ('users', (select max(id) from users)), ('movies', (select max(id) from movies))
) as filled (table_name, last_id)
left join pg_sequences as given
    on format('%I.%I', given.schemaname, given.sequencename) = pg_get_serial_sequence(filled.table_name, 'id')
where filled.last_id > coalesce(given.last_value, 0);
