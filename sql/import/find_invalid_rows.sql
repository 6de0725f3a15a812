-- Returns one row for each reason why a row of the Django application's tables cannot be imported, such as a text that
-- is too long, a repeated e-mail address, or a movie without a creator. No row: everything can be imported.
--
-- New rows get ids after the last one of the source: after the largest 64-bit id no row could be created, and after
-- 2^62 - 1 enough ids are left. A dump contains only times of the years 1 to 9999. PostgreSQL has others, such as
-- infinity, which clients cannot read.
with limits as (
    select
        4611686018427387903 as last_id,
        tstzrange('0001-01-01T00:00:00Z', '10000-01-01T00:00:00Z') as times
), invalid as (
    select 'user' as kind, id::bigint as id, reason
    from auth_user as account
    cross join limits
    cross join lateral (
        values
            (id <= 0, 'its id is not positive'),
            (id > last_id, format('its id is larger than %s: too few would be left for new users', last_id)),
            (not limits.times @> date_joined::timestamptz, 'its date_joined is not in the years 1 to 9999'),
            (length(username) > 150, 'its username is longer than 150 characters'),
            (length(password) > 255, 'its password hash is longer than 255 characters'),
            (length(email) > 254, 'its e-mail address is longer than 254 characters'),
            (length(first_name) > 150, 'its first name is longer than 150 characters'),
            (length(last_name) > 150, 'its last name is longer than 150 characters'),
            (
                email <> '' and exists (
                    select from auth_user as other where other.email = account.email and other.id < account.id
                ),
                format('its e-mail address %s is another user''s too', email)
            ),
            (
                exists (
                    select from auth_user as other where other.username = account.username and other.id < account.id
                ),
                format('its username %s is another user''s too', username)
            ),
            (num_nulls(id, username, password, email, first_name, last_name, is_active, date_joined) > 0, 'it lacks a value')
    ) as checked (is_invalid, reason)
    where is_invalid
    union all
    select 'movie', id::bigint, reason
    from movies_movie as movie
    cross join limits
    cross join lateral (
        -- A table without these columns, which is usual, gives null.
        select
            (to_jsonb(movie) ->> 'created_at')::timestamptz as created_at,
            (to_jsonb(movie) ->> 'updated_at')::timestamptz as updated_at
    ) as optional
    cross join lateral (
        values
            (id <= 0, 'its id is not positive'),
            (id > last_id, format('its id is larger than %s: too few would be left for new movies', last_id)),
            (not limits.times @> optional.created_at, 'its created_at is not in the years 1 to 9999'),
            (not limits.times @> optional.updated_at, 'its updated_at is not in the years 1 to 9999'),
            (length(title) > 100, 'its title is longer than 100 characters'),
            (length(genre) > 100, 'its genre is longer than 100 characters'),
            (year not between -2147483648 and 2147483647, 'its year is no 32-bit integer'),
            (
                not exists (select from auth_user as creator where creator.id = movie.creator_id),
                'its creator does not exist'
            ),
            (num_nulls(id, title, genre, year, creator_id) > 0, 'it lacks a value')
    ) as checked (is_invalid, reason)
    where is_invalid
    union all
    select 'sequence of ' || table_name, last_value, format('it is larger than %s: too few ids would be left', last_id)
    from (values ('auth_user'), ('movies_movie')) as source (table_name)
    join pg_sequences on format('%I.%I', schemaname, sequencename) = pg_get_serial_sequence(table_name, 'id')
    cross join limits
    where last_value > last_id
)
select format('%s %s: %s', kind, id, reason) as problem
from invalid
order by kind desc, id, reason;
