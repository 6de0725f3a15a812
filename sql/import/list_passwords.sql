-- Returns the password hash of each user. The program counts those that it cannot verify (src/auth/password.rs): such
-- users are imported, and cannot sign in until an operator sets a password.
select password::text as password from auth_user;
