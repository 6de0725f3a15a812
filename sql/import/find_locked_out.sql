-- Answers, hash by hash of Django's, how many users have a password that this service cannot verify: they are imported,
-- and cannot sign in until an operator gives them one. A hash that begins with an exclamation mark is Django's for no
-- password. The bound on PBKDF2's iterations, 5,000,000, is that of src/password.rs.
select
    case when password like '!%' then 'no password' else split_part(password, '$', 1) end as algorithm,
    count(*) as users
from auth_user
where password !~ '^bcrypt_sha256\$'
  and password !~ '^pbkdf2_sha256\$0*(([1-4]?[0-9]{1,6})|5000000)\$'
group by algorithm
order by algorithm;
