-- Answers the Django application's users, one a line of COPY's text.
copy (
    select id, username, password, email, first_name, last_name, is_active, date_joined::timestamptz
    from auth_user
    order by id
) to stdout;
