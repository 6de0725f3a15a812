-- Answers who asks, how many of the movies that they may read match, and one page of these, newest first. The first
-- row is always there; its movie is null on an empty page.
-- $1 bigint: the user who asks; $2 bigint: whose movies, null for everybody's; $3 bigint: the page from 1, null for
-- the last; $4 bigint: movies on a page
-- $5 text: LIKE pattern of the title; $6 text: of the genre; $7 text: of the creator's name; null matches all
-- $8 bigint: the lowest year; $9 bigint: the highest
-- Rests on users_id_key and movies_by_creator, for everybody's movies on movies_id_key.
with asker as (
    select is_active
    from users
    where id = $1::bigint
), matching as not materialized (
    select movie.id, movie.title, movie.genre, movie.year, creator.username as creator
    from movies as movie
    join users as creator on creator.id = movie.creator_id
    where ($2::bigint is null or movie.creator_id = $2::bigint)
      and ($5::text is null or upper(movie.title) like upper($5::text))
      and ($6::text is null or upper(movie.genre) like upper($6::text))
      and ($7::text is null or upper(creator.username) like upper($7::text))
      and movie.year between $8::bigint and $9::bigint
), total as (
    select count(*) as movies
    from matching
), page as (
    select id, title, genre, year, creator
    from matching
    order by id desc
    limit $4::bigint
    offset (
        select (coalesce($3::bigint, greatest(1, (total.movies + $4::bigint - 1) / $4::bigint)) - 1) * $4::bigint
        from total
    )
)
select
    asker.is_active as asker_is_active,
    total.movies as total,
    page.id,
    page.title,
    page.genre,
    page.year,
    page.creator
from total
left join asker on true
left join page on true
order by page.id desc;
