-- Writes the Django application's movies as lines in COPY's text format. A table without created_at or updated_at,
-- which is usual, gives the current time.
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
