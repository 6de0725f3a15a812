-- Answers how many users and movies there are, counted one by one.
select (select count(*) from users) as users, (select count(*) from movies) as movies;
