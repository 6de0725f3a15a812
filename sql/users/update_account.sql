-- Returns one row: whether the requesting user is active (null: no such user), the generation of the user's valid tokens,
-- whether another user has the e-mail address, and the changed account (null unless it was changed). Changes the account
-- if the user is active, the token is of that generation, and the address is free. A field given as null stays as it is.
-- $1 bigint: requesting user; $2 bigint: generation of the token; $3 text: e-mail address; $4 text: first name;
-- $5 text: last name
-- Uses users_id_key and users_email_unique.
with existing as (
    select exists (
        select from users where email = $3::text and email <> '' and id <> $1::bigint
    ) as email_taken
), changed as (
    update users
    set
        email = coalesce($3::text, email),
        first_name = coalesce($4::text, first_name),
        last_name = coalesce($5::text, last_name)
    where id = $1::bigint
      and is_active
      and token_generation = $2::bigint
      and not (select email_taken from existing)
    returning id, username, email, first_name, last_name
)
select
    requester.is_active as user_is_active,
    requester.token_generation as current_generation,
    existing.email_taken,
    changed.id,
    changed.username,
    changed.email,
    changed.first_name,
    changed.last_name
from existing
left join users as requester on requester.id = $1::bigint
left join changed on true;
