-- Adds users of a dump from lines in COPY's text format.
copy pg_temp.auth_user (id, username, password, email, first_name, last_name, is_active, date_joined) from stdin;
