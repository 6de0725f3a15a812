-- Keeps another hash of a user's password; if a former one is given, only in its place, so that a hash made from the
-- former password never undoes a change that came meanwhile.
-- $1 bigint: the user; $2 text: the hash; $3 text: the former one, or null
-- Rests on users_id_key.
update users
set password_hash = $2::text
where id = $1::bigint
  and ($3::text is null or password_hash = $3::text);
