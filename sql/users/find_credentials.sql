-- Answers what is needed to judge a sign-in.
-- $1 text: username
-- Rests on users_username_unique.
select id, password_hash, is_active
from users
where username = $1::text;
