-- Returns one row for each input: whether the requesting user is active (null: no such user), the generation of the
-- user's valid tokens, the new movie's id (null unless the user is active and the token is of that generation), and the
-- user's name. Creates the movie.
-- $1 bigint[]: requesting users; $2 bigint[]: generations of their tokens; $3 text[]: titles; $4 text[]: genres;
-- $5 integer[]: years
-- Uses users_id_key. The sequence is read before the insert, since a row that `insert ... returning` returns does not
-- say which input it belongs to.
-- `limit 1` changes no result: it makes the planner use the primary key, where it might join by reading the whole
-- table.
with input as materialized (
    select
        given.*,
        requester.is_active,
        requester.token_generation as current_generation,
        requester.username,
        case
            when requester.is_active and requester.token_generation = given.token_generation then nextval('movies_id_seq')
        end as id
    from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::integer[])
        with ordinality as given (user_id, token_generation, title, genre, year, ordinal)
    left join lateral (select * from users where id = given.user_id limit 1) as requester on true
), created as (
    insert into movies (id, title, genre, year, creator_id)
    select id, title, genre, year, user_id
    from input
    where id is not null
)
select ordinal, is_active as user_is_active, current_generation, id, username as creator
from input;
