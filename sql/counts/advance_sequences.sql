-- Returns how many sequences were moved on. Moves the sequence of a table past its last id where rows were inserted
-- with ids of their own. Never moves a sequence back.
select count(setval(pg_get_serial_sequence(filled.table_name, 'id')::regclass, filled.last_id)) as moved
from (
    values ('users', (select max(id) from users)), ('movies', (select max(id) from movies))
) as filled (table_name, last_id)
left join pg_sequences as sequence
    on format('%I.%I', sequence.schemaname, sequence.sequencename) = pg_get_serial_sequence(filled.table_name, 'id')
where filled.last_id > coalesce(sequence.last_value, 0);
