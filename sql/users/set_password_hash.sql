-- Stores a new hash of a user's password. Returns nothing.
-- With a former hash, replaces only that one: a hash that was computed from the former password cannot undo a change of
-- the password made meanwhile.
-- $1 bigint: user; $2 text: new hash; $3 text: former hash, or null
-- Uses users_id_key.
update users
set password_hash = $2::text
where id = $1::bigint
  and ($3::text is null or password_hash = $3::text);
