-- Movies with these ids: even shelves, or one that holds three tenths of all and one that holds a hundred.
-- $1 bigint: the first id; $2 bigint: the last; $3 bigint: users; $4 bigint: the shelf of a hundred holds one movie
-- in so many, null for even shelves; $5 text[]: the first words of titles; $6 text[]: the second
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
