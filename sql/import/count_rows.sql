-- Returns one row: the numbers of users and movies, counted row by row.
select (select count(*) from users) as users, (select count(*) from movies) as movies;
