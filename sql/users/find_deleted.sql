-- Returns up to 100 deleted users whose movies are still to be deleted, by id.
-- Uses users_deleted.
select id
from users
where is_active is null
order by id
limit 100;
