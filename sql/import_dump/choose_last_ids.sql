-- Returns the ids after which new users and movies are numbered, as the last ids that the source gave out. A dump does
-- not contain them: users who registered last and were deleted before the dump leave no trace, and their tokens may
-- still be valid.
--
-- Users: the id of Django's user model is an AutoField in every version from 3 to 5, which is a 32-bit column in
-- PostgreSQL, MySQL and MariaDB, so no id from 2,147,483,648 on was ever given out. In SQLite and Oracle, which have wider
-- columns, it would take as many registrations. A dump with such ids all the same gets as wide a gap after the largest.
-- The checks before refuse ids from 2^62 on, so no sum exceeds 64 bits.
-- Movies: no token names a movie. A gap of 1,000,000 keeps old links from leading to a new movie.
select
    case
        when users.last_id < 2147483648 then 2147483647
        else users.last_id + 2147483648
    end as last_user_id,
    movies.last_id + 1000000 as last_movie_id
from (select coalesce(max(id), 0) as last_id from pg_temp.auth_user) as users
cross join (select coalesce(max(id), 0) as last_id from pg_temp.movies_movie) as movies;
