-- Lets a user sign in, or no longer.
-- $1 bigint: the user; $2 boolean: whether they may
-- Rests on users_id_key.
update users
set is_active = $2::boolean
where id = $1::bigint;
