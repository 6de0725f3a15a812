-- Deletes a user with all their movies, and returns how many movies those were; no row if the user is not there.
-- $1 bigint: the user
-- Relies on users_id_key, and on movies_by_creator for the movies, which the foreign key deletes.
-- One statement, so that all or nothing is deleted. Measured on two busy cores: 3 s for a user with 100,000 movies, 13 s for
-- one with 300,000. Where that is longer than statement_timeout (15 s for a command), nothing is deleted.
delete from users
where id = $1::bigint
returning movie_count;
