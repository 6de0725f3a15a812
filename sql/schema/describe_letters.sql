-- Returns one row: whether upper() knows letters beyond ASCII, which case-insensitive searches of such letters need.
select upper('é') = 'É' as knows_letters;
