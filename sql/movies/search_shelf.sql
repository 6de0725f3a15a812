-- Answers who asks, how many of their movies match, and one page of these, in any order: to sort it here would cost a
-- tenth of the statement. A user who is there has one row at least; its movie is null, and the count 0, past the end.
-- $1 bigint: the user who asks; $2 bigint: the page from 1, null for the last; $3 bigint: movies on a page
-- $4 text: LIKE pattern of the title; $5 text: of the genre; $6 text: of the creator's name; % matches all
-- $7 bigint: the lowest year; $8 bigint: the highest
-- Rests on users_id_key and movies_by_creator, along which a short shelf is read once; a long one is left to
-- find_page_of_matches.
-- Of a short shelf every title is looked at, so what that costs decides: upper() is four times quicker for the collation
-- "C", and for ASCII text the same, unless this locale has capitals of its own for ASCII letters, as Turkish has. The
-- other tests are left to titles that passed.
select
    requester.is_active as user_is_active,
    coalesce(found.total, 0) as total,
    found.id,
    found.title,
    found.genre,
    found.year,
    requester.username as creator
from users as requester
left join lateral (
    select kept.id, kept.title, kept.genre, kept.year, kept.total
    from (
        select
            movie.id,
            movie.title,
            movie.genre,
            movie.year,
            count(*) over newest_first as total,
            row_number() over newest_first as place
        from movies as movie
        where requester.movie_count <= 1000
          and movie.creator_id = $1::bigint
          and case
              when case
                  when octet_length(movie.title) = length(movie.title)
                      and upper('abcdefghijklmnopqrstuvwxyz') = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'
                  then upper(movie.title collate "C") like (select upper($4::text))
                  else upper(movie.title) like (select upper($4::text))
              end
              then movie.year between $7::bigint and $8::bigint
                  and upper(movie.genre) like (select upper($5::text))
                  and upper(requester.username) like (select upper($6::text))
              else false
          end
        window newest_first as (order by movie.id desc rows between unbounded preceding and unbounded following)
    ) as kept
    where kept.place > coalesce($2::bigint - 1, (kept.total - 1) / $3::bigint) * $3::bigint
      and kept.place <= coalesce($2::bigint * $3::bigint, kept.total)
    union all
    select long.id, long.title, long.genre, long.year, long.total
    from find_page_of_matches(
        $1::bigint, $2::bigint, $3::bigint, $4::text, $5::text, '%', $7::bigint, $8::bigint
    ) as long
    where requester.movie_count > 1000
      and upper(requester.username) like upper($6::text)
) as found on true
where requester.id = $1::bigint;
