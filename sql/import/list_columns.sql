-- Answers the columns of the two tables that are taken over from a Django application, as the search path finds them; a
-- table that is not there has none.
select relation.name as table_name, attribute.attname::text as column_name
from (values ('auth_user'), ('movies_movie')) as relation (name)
join pg_attribute as attribute on attribute.attrelid = to_regclass(relation.name)
where attribute.attnum > 0
  and not attribute.attisdropped
order by relation.name, attribute.attnum;
