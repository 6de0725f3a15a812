-- Inserts movies from lines in COPY's text format, as copy_movies_out.sql writes them.
copy movies (id, title, genre, year, creator_id, created_at, updated_at) from stdin;
