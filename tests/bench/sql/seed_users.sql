-- Users 1 to n, without a password that anybody could sign in with.
-- $1 bigint: how many
insert into users (id, username, password_hash, email)
select id, 'user' || id, '!', 'user' || id || '@example.com'
from generate_series(1, $1::bigint) as id
