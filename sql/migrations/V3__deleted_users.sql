-- Deletion of accounts by parts: an account with many movies ends in one short transaction, and its movies go in others.

-- null: the user is deleted, and the row is there until the last of their movies is deleted. Statements return it as they
-- do for a user who does not exist, and one that requires `is_active` finds no such user.
alter table users alter column is_active drop not null;

-- Finds the deleted users whose movies are still to be deleted, mostly none.
create index users_deleted on users (id) where is_active is null;
