-- Returns whether the user is active; no row if the user does not exist.
-- $1 bigint: user
-- Uses users_id_key.
select is_active
from users
where id = $1::bigint;
