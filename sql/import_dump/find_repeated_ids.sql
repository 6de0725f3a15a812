-- Returns one row for each id that several users or several movies of a dump have. In a database the primary key
-- prevents it.
select format('user %s: its id is another user''s too', id) as problem
from pg_temp.auth_user
group by id
having count(*) > 1
union all
select format('movie %s: its id is another movie''s too', id)
from pg_temp.movies_movie
group by id
having count(*) > 1
order by problem desc;
