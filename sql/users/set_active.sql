-- Activates or deactivates a user: an inactive user cannot sign in, and their tokens are refused. Returns the
-- user's id; no row if there is no such user.
-- $1 bigint: user; $2 boolean: whether the user is active
-- Uses users_id_key.
update users
set is_active = $2::boolean
where id = $1::bigint
  and is_active is not null
returning id;
