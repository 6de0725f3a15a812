-- Answers the Django application's movies, one a line of COPY's text. Its table may keep when they were made and
-- changed, and often does not: then that is now.
copy (
    select
        id,
        title,
        genre,
        year,
        creator_id,
        coalesce((to_jsonb(movie) ->> 'created_at')::timestamptz, now()),
        coalesce((to_jsonb(movie) ->> 'updated_at')::timestamptz, now())
    from movies_movie as movie
    order by id
) to stdout;
