-- Returns one row: whether the token's user is active (null: no such user), the generation of the user's valid tokens,
-- whether the token was blacklisted before, and whether this statement blacklisted it. It does so unless the user does
-- not exist, is inactive, or has tokens of another generation. Deletes up to 100 rows of tokens that have expired.
-- $1 bigint: user, or null for a token without one; $2 bigint: generation of the token; $3 bytea: SHA-256 of the token's id;
-- $4 bigint: when the token expires, in seconds since 1970
-- Uses users_id_key, blacklisted_tokens_key and blacklisted_tokens_by_expiry.
with expired as (
    delete from blacklisted_tokens
    where token_id_digest in (
        select token_id_digest
        from blacklisted_tokens
        where expires_at < now()
        order by expires_at
        limit 100
        for update skip locked
    )
), added as (
    insert into blacklisted_tokens (token_id_digest, expires_at)
    select $3::bytea, to_timestamp($4::bigint)
    where $1::bigint is null
       or exists (select from users where id = $1::bigint and is_active and token_generation = $2::bigint)
    on conflict do nothing
    returning token_id_digest
)
select
    owner.is_active as user_is_active,
    owner.token_generation as current_generation,
    exists (select from blacklisted_tokens where token_id_digest = $3::bytea) as is_blacklisted,
    exists (select from added) as is_added
from (select) as one_row
left join users as owner on owner.id = $1::bigint;
