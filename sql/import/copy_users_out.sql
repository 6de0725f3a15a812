-- Writes the Django application's users as lines in COPY's text format.
copy (
    select id, username, password, email, first_name, last_name, is_active, date_joined::timestamptz
    from auth_user
    order by id
) to stdout;
