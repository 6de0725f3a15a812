-- Returns how many users have a password hash that this service cannot verify, by the hash's algorithm. Such users are
-- imported, and cannot sign in until an operator sets a password. Django marks an account without a password by a hash
-- that begins with an exclamation mark. The limit on PBKDF2's iterations, 5,000,000, is that of src/auth/password.rs.
select
    case when password like '!%' then 'no password' else split_part(password, '$', 1) end as algorithm,
    count(*) as users
from auth_user
where password !~ '^bcrypt_sha256\$'
  and password !~ '^pbkdf2_sha256\$0*(([1-4]?[0-9]{1,6})|5000000)\$'
group by algorithm
order by algorithm;
