-- Returns one row if the database answers.
select true as ready;
