-- Ends all tokens of one user or of all users that were issued before, and returns how many users those are.
-- $1 bigint: user, or null for all
-- Uses users_id_key for one user.
with signed_out as (
    update users
    set token_generation = token_generation + 1
    where ($1::bigint is null or id = $1::bigint)
      and is_active is not null
    returning id
)
select count(*) as user_count
from signed_out;
