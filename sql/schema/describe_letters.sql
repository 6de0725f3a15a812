-- Answers whether upper() knows letters beyond ASCII, on which searching without regard to case rests.
select upper('é') = 'É' as knows_letters;
