-- Returns one row: whether a user has the username, and whether one has the e-mail address. A null parameter matches no
-- user.
-- $1 text: username; $2 text: e-mail address
-- Uses users_username_unique and users_email_unique.
select
    exists (select from users where username = $1::text) as username_taken,
    exists (select from users where email = $2::text and email <> '') as email_taken;
