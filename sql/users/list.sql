-- Returns all users, by id, without their password hashes.
-- Uses users_id_key.
select
    id,
    username,
    email,
    first_name,
    last_name,
    is_active,
    -- to_char returns null for infinity and -infinity, which rows of other programs may contain.
    coalesce(to_char(date_joined at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), date_joined::text) as date_joined,
    movie_count
from users
where is_active is not null
order by id;
