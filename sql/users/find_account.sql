-- Returns the account of the requesting user, the password's hash, whether the user is active, and the generation of the
-- user's valid tokens; no row if the user does not exist.
-- $1 bigint: requesting user
-- Uses users_id_key.
select
    id,
    username,
    email,
    first_name,
    last_name,
    password_hash,
    is_active as user_is_active,
    token_generation as current_generation
from users
where id = $1::bigint;
