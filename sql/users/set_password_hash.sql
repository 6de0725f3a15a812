-- Stores a new hash of a user's password. Returns the user's id; no row if nothing was stored.
-- With a former hash, replaces only that one, and the password is the same: a hash that was computed from the former
-- password cannot undo a change of the password made meanwhile. Without one, the password is new, and all tokens of the
-- user that were issued before are refused.
-- $1 bigint: user; $2 text: new hash; $3 text: former hash, or null
-- Uses users_id_key.
update users
set
    password_hash = $2::text,
    token_generation = token_generation + case when $3::text is null then 1 else 0 end
where id = $1::bigint
  and is_active is not null
  and ($3::text is null or password_hash = $3::text)
returning id;
