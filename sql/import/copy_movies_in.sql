-- Takes movies, one a line of COPY's text, as copy_movies_out.sql answers them.
copy movies (id, title, genre, year, creator_id, created_at, updated_at) from stdin;
