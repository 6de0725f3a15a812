-- Answers if the database does.
select true as ready;
