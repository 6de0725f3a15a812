-- Returns one row: the new user's id, or null and which of the username and the e-mail address another user has.
-- $1 text: username; $2 text: e-mail address; $3 text: password hash; $4 text: first name; $5 text: last name
-- Uses users_username_unique and users_email_unique.
with existing as (
    select
        exists (select from users where username = $1::text) as username_taken,
        exists (select from users where email = $2::text and email <> '') as email_taken
), created as (
    insert into users (username, email, password_hash, first_name, last_name)
    select $1::text, $2::text, $3::text, $4::text, $5::text
    from existing
    where not existing.username_taken and not existing.email_taken
    returning id
)
select created.id, existing.username_taken, existing.email_taken
from existing
left join created on true;
