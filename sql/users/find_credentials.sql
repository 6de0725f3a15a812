-- Returns what a sign-in needs: the password's hash, whether the user is active, and the generation of the user's valid
-- tokens; no row if the user does not exist.
-- $1 text: username
-- Uses users_username_unique.
select id, password_hash, is_active, token_generation
from users
where username = $1::text
  and is_active is not null;
