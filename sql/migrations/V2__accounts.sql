-- Revocation of tokens: all tokens of a user at once, and single refresh tokens.

-- The generation of a user's valid tokens. A change of the password or a sign-out raises it, and tokens of an earlier
-- generation are refused from then on. Tokens of generation 0 do not carry it, so they look as SimpleJWT's.
alter table users add column token_generation integer not null default 0;

-- Refresh tokens that were signed out. The SHA-256 of the claim `jti` has the same length whatever a token's id is. A row
-- is of no use after `expires_at`, when the token is refused anyway: statements that add rows delete some of those.
create table blacklisted_tokens (
    token_id_digest bytea       not null,
    expires_at      timestamptz not null,
    constraint blacklisted_tokens_key primary key (token_id_digest)
);

create index blacklisted_tokens_by_expiry on blacklisted_tokens (expires_at);
