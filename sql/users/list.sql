-- Returns all users, by id, without their password hashes.
-- Uses users_id_key.
select
    id,
    username,
    email,
    first_name,
    last_name,
    is_active,
    to_char(date_joined at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as date_joined,
    movie_count
from users
where is_active is not null
order by id;
