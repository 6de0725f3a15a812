-- Answers whether the user is there (a row) and active.
-- $1 bigint: the user
-- Rests on users_id_key.
select is_active
from users
where id = $1::bigint;
