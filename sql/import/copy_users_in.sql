-- Inserts users from lines in COPY's text format, as copy_users_out.sql writes them.
copy users (id, username, password_hash, email, first_name, last_name, is_active, date_joined) from stdin;
