-- Makes a user, or says which of the two unique fields is taken.
-- $1 text: username; $2 text: e-mail address; $3 text: password hash; $4 text: first name; $5 text: last name
-- Rests on users_username_unique and users_email_unique.
with taken as (
    select
        exists (select from users where username = $1::text) as username_taken,
        exists (select from users where email = $2::text and email <> '') as email_taken
), created as (
    insert into users (username, email, password_hash, first_name, last_name)
    select $1::text, $2::text, $3::text, $4::text, $5::text
    from taken
    where not taken.username_taken and not taken.email_taken
    returning id
)
select created.id, taken.username_taken, taken.email_taken
from taken
left join created on true;
