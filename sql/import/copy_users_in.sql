-- Takes users, one a line of COPY's text, as copy_users_out.sql answers them.
copy users (id, username, password_hash, email, first_name, last_name, is_active, date_joined) from stdin;
