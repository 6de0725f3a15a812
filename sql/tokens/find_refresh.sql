-- Returns one row: whether the token's user is active (null: no such user), the generation of the user's valid tokens,
-- and whether the token is blacklisted.
-- $1 bigint: user, or null for a token without one; $2 bytea: SHA-256 of the token's id
-- Uses users_id_key and blacklisted_tokens_key.
select
    owner.is_active as user_is_active,
    owner.token_generation as current_generation,
    exists (select from blacklisted_tokens where token_id_digest = $2::bytea) as is_blacklisted
from (select) as one_row
left join users as owner on owner.id = $1::bigint;
