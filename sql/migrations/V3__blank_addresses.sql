-- Users without an e-mail address, as many as there are: Django leaves the address blank where none is given, and an
-- import takes such users over as they are. Addresses that are there stay unique. A registration still has to give one.

alter table users drop constraint users_email_unique;
create unique index users_email_unique on users (email) where email <> '';
