-- Creates users 1 to $1, whose password hash matches no password.
-- $1 bigint: the number of users
insert into users (id, username, password_hash, email)
select id, 'user' || id, '!', 'user' || id || '@example.com'
from generate_series(1, $1::bigint) as id
