-- Returns what a sign-in needs to verify a password; no row if the user does not exist.
-- $1 text: username
-- Uses users_username_unique.
select id, password_hash, is_active
from users
where username = $1::text;
