-- Answers which of a new user's unique fields are taken; null for a field asks nothing.
-- $1 text: username; $2 text: e-mail address
-- Rests on users_username_unique and users_email_unique.
select
    exists (select from users where username = $1::text) as username_taken,
    exists (select from users where email = $2::text and email <> '') as email_taken;
