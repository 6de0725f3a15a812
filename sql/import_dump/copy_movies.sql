-- Adds movies of a dump from lines in COPY's text format.
copy pg_temp.movies_movie (id, title, genre, year, creator_id, creator_username, created_at, updated_at) from stdin;
