-- Creates the movies with the ids $1 to $2. If $4 is null, all users have the same number of movies. Otherwise user 1
-- has 30 % of the movies and user 2 has one movie in $4.
-- $1 bigint: the first id; $2 bigint: the last id; $3 bigint: the number of users; $4 bigint: see above
-- $5 text[]: first words of titles; $6 text[]: second words of titles
insert into movies (id, title, genre, year, creator_id)
select
    id,
    ($5::text[])[1 + ('x' || substr(digest, 1, 4))::bit(16)::integer % cardinality($5::text[])]
        || ' ' || ($6::text[])[1 + ('x' || substr(digest, 5, 4))::bit(16)::integer % cardinality($6::text[])]
        || ' ' || substr(digest, 9, 6),
    (array['Drama', 'Comedy', 'Crime', 'Western'])[1 + id % 4],
    1950 + id % 75,
    case
        when $4::bigint is null then 1 + (id - 1) % $3::bigint
        when id % 10 < 3 then 1
        when id % $4::bigint = 5 then 2
        else 3 + id % ($3::bigint - 2)
    end
from generate_series($1::bigint, $2::bigint) as id
cross join lateral md5(id::text) as digest
