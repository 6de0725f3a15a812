-- Returns the new generation of the user's valid tokens. Stores a new password hash and so ends all tokens that were issued
-- before. No row, and no change, if the user is inactive or the token is not of the current generation: of several changes
-- at the same time, one is made.
-- $1 bigint: requesting user; $2 bigint: generation of the token; $3 text: new hash
-- Uses users_id_key.
update users
set password_hash = $3::text, token_generation = token_generation + 1
where id = $1::bigint
  and is_active
  and token_generation = $2::bigint
returning token_generation;
