-- Returns the columns of the Django application's two tables, which search_path finds. A table that does not exist has
-- no row.
select relation.name as table_name, attribute.attname::text as column_name
from (values ('auth_user'), ('movies_movie')) as relation (name)
join pg_attribute as attribute on attribute.attrelid = to_regclass(relation.name)
where attribute.attnum > 0
  and not attribute.attisdropped
order by relation.name, attribute.attnum;
