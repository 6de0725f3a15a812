//! JSON Web Tokens: claims, signing, verification, key rotation. Does not depend on users, HTTP or the database.
//!
//! The rules are those of SimpleJWT 5.5 and PyJWT: HS256 only, no leeway, and the signature is verified before the claims.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::auth::signing_key::SigningKey;

/// The value of the claim `token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// Authenticates requests.
    Access,
    /// Can be exchanged for a new access token.
    Refresh,
}

impl TokenType {
    fn claim(self) -> &'static str {
        match self {
            TokenType::Access => "access",
            TokenType::Refresh => "refresh",
        }
    }
}

/// Why a token is invalid, with SimpleJWT's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say what they mean
pub enum TokenError {
    /// It is malformed, has another algorithm or signature, is not valid yet, or a claim has the wrong type.
    #[error("Token is invalid")]
    Invalid,
    #[error("Token is expired")]
    Expired,
    #[error("Token has wrong type")]
    WrongType,
    #[error("Token has no type")]
    NoType,
    #[error("Token has no id")]
    NoId,
    #[error("Token has no 'exp' claim")]
    NoExpiry,
}

/// The user of a token, from its claim `user_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The claim is missing.
    Missing,
    /// The claim is false in Python: null, false, zero, or empty.
    Falsy,
    /// The claim cannot be a user's id.
    Invalid,
    /// A user's id.
    User(i64),
}

/// The claims of a verified token.
#[derive(Clone, Debug)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// The token's user. The claim may be a string of digits or a whole number.
    pub fn subject(&self) -> Subject {
        let id = match self.0.get("user_id") {
            None => return Subject::Missing,
            Some(claim) if is_falsy(claim) => return Subject::Falsy,
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(Value::Number(number)) => number.as_i64(),
            Some(_) => None,
        };
        id.map_or(Subject::Invalid, Subject::User)
    }

    /// The generation of the token, see [`TokenKeys::issue_pair`]: 0 if the token carries none, as SimpleJWT's tokens, and -1,
    /// which no user has, if the claim is not a whole number.
    pub fn generation(&self) -> i64 {
        match self.0.get(GENERATION_CLAIM) {
            None => 0,
            Some(claim) => claim.as_i64().unwrap_or(-1),
        }
    }

    /// SHA-256 of the token's id, which may be of any length.
    pub fn id_digest(&self) -> [u8; 32] {
        let id = self.0.get("jti").and_then(Value::as_str);
        Sha256::digest(id.unwrap_or_default()).into()
    }

    /// When the token expires, in seconds since 1970, at most [`LATEST_EXPIRY`].
    pub fn expires(&self) -> i64 {
        let seconds = self.0.get("exp").and_then(whole_seconds);
        seconds.unwrap_or(LATEST_EXPIRY).min(LATEST_EXPIRY)
    }
}

/// Holds the generation of tokens whose user changed the password, or was signed out, at least once.
const GENERATION_CLAIM: &str = "token_generation";

/// The last second of the year 9999. PostgreSQL's timestamps end later, but the claim `exp` may be any number.
const LATEST_EXPIRY: i64 = 253_402_300_799;

/// The number of verified access tokens in the cache, so that the next request with the same token needs no HMAC and no JSON
/// parsing. With tokens as they are issued here, the cache takes 2 MiB.
const CACHE_CAPACITY: usize = 8192;

/// Longer tokens are not cached. Tokens that are issued here have 240 bytes.
const MAX_CACHED_BYTES: usize = 512;

/// The result of a verification. A verified token stays valid until it expires.
#[derive(Clone, Copy)]
struct CachedToken {
    subject: Subject,
    generation: i64,
    /// In seconds since 1970.
    expires: i64,
}

/// Signs and verifies tokens. Workers share it; the cache has its own locks.
pub struct TokenKeys {
    signing_key: EncodingKey,
    /// The current key and its predecessors.
    verification_keys: Vec<DecodingKey>,
    validation: Validation,
    access_lifetime: Duration,
    refresh_lifetime: Duration,
    /// By the whole token. The hash has a random key, so the time of a lookup reveals nothing about cached tokens.
    cache: Cache<Box<str>, CachedToken>,
}

impl TokenKeys {
    /// Signs tokens with `key`. Tokens signed with one of `fallbacks` are also valid, so that a key can be replaced without
    /// signing all users out.
    pub fn new<'a>(
        key: &'a SigningKey,
        fallbacks: impl IntoIterator<Item = &'a SigningKey>,
        access_lifetime: Duration,
        refresh_lifetime: Duration,
    ) -> TokenKeys {
        // Fails if an earlier call has already installed the same provider.
        _ = HS256_PROVIDER.install_default();
        let mut validation = Validation::new(Algorithm::HS256);
        // The library ignores claims of a wrong type and allows a minute of leeway, so `check_times` checks them instead.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let keys = std::iter::once(key).chain(fallbacks);
        TokenKeys {
            signing_key: EncodingKey::from_secret(key.as_bytes()),
            verification_keys: keys
                .map(|key| DecodingKey::from_secret(key.as_bytes()))
                .collect(),
            validation,
            access_lifetime,
            refresh_lifetime,
            cache: Cache::new(CACHE_CAPACITY),
        }
    }

    /// Issues a refresh token and an access token for the user, in this order. Tokens of a generation past 0 carry it as a
    /// claim; all others have exactly the claims of SimpleJWT's.
    ///
    /// # Errors
    /// If the system has no randomness for the token's id.
    pub fn issue_pair(
        &self,
        user_id: i64,
        generation: i64,
    ) -> jsonwebtoken::errors::Result<(String, String)> {
        let mut claims = Map::from_iter([("user_id".into(), Value::from(user_id.to_string()))]);
        if generation > 0 {
            claims.insert(GENERATION_CLAIM.into(), generation.into());
        }
        Ok((
            self.sign(TokenType::Refresh, claims.clone())?,
            self.sign(TokenType::Access, claims)?,
        ))
    }

    /// Issues an access token for the user of a refresh token. Unknown claims are copied, as SimpleJWT does.
    ///
    /// # Errors
    /// As [`TokenKeys::issue_pair`].
    pub fn issue_access(&self, refresh: Claims) -> jsonwebtoken::errors::Result<String> {
        self.sign(TokenType::Access, refresh.0)
    }

    fn sign(
        &self,
        token_type: TokenType,
        mut claims: Map<String, Value>,
    ) -> jsonwebtoken::errors::Result<String> {
        let now = seconds_since_epoch();
        let lifetime = match token_type {
            TokenType::Access => self.access_lifetime,
            TokenType::Refresh => self.refresh_lifetime,
        };
        claims.insert("token_type".into(), token_type.claim().into());
        let expires = now.saturating_add_unsigned(lifetime.as_secs());
        claims.insert("exp".into(), expires.into());
        claims.insert("iat".into(), now.into());
        claims.insert("jti".into(), random_token_id()?.into());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing_key)
    }

    /// Verifies an access token and returns its user and its generation, from the cache if possible. Whether the generation
    /// is the user's current one is not known here.
    pub fn verify_access(&self, token: &str) -> Result<(Subject, i64), TokenError> {
        let now = seconds_since_epoch();
        let cached = self.cache.get(token);
        if let Some(cached) = cached.filter(|cached| cached.expires > now) {
            return Ok((cached.subject, cached.generation));
        }
        let claims = self.verify(token, TokenType::Access)?;
        let (subject, generation) = (claims.subject(), claims.generation());
        let expires = claims.0.get("exp").and_then(whole_seconds);
        if let Some(expires) = expires.filter(|_| token.len() <= MAX_CACHED_BYTES) {
            let cached = CachedToken {
                subject,
                generation,
                expires,
            };
            self.cache.insert(token.into(), cached);
        }
        Ok((subject, generation))
    }

    /// Verifies a token of the given type and returns its claims.
    pub fn verify(&self, token: &str, token_type: TokenType) -> Result<Claims, TokenError> {
        let claims = self.verify_any(token)?;
        match claims.0.get("token_type") {
            None => Err(TokenError::NoType),
            Some(Value::String(named)) if named == token_type.claim() => Ok(claims),
            Some(_) => Err(TokenError::WrongType),
        }
    }

    /// Verifies a token of any type or of none, as SimpleJWT's UntypedToken, and returns its claims.
    pub fn verify_any(&self, token: &str) -> Result<Claims, TokenError> {
        let decoded = self
            .verification_keys
            .iter()
            .find_map(|key| {
                jsonwebtoken::decode::<Map<String, Value>>(token, key, &self.validation).ok()
            })
            .ok_or(TokenError::Invalid)?;
        // A token with an unknown critical extension is invalid (RFC 7515 4.1.11), and none is known here.
        if decoded.header.crit.is_some() {
            return Err(TokenError::Invalid);
        }
        let claims = decoded.claims;
        check_times(&claims, seconds_since_epoch())?;
        if !claims.contains_key("exp") {
            return Err(TokenError::NoExpiry);
        }
        if !claims.contains_key("jti") {
            return Err(TokenError::NoId);
        }
        Ok(Claims(claims))
    }
}

/// Checks the registered claims in PyJWT's order: `iat`, `nbf`, `exp`, then the types of `sub` and `jti`.
fn check_times(claims: &Map<String, Value>, now: i64) -> Result<(), TokenError> {
    for name in ["iat", "nbf"] {
        if let Some(claim) = claims.get(name)
            && whole_seconds(claim).ok_or(TokenError::Invalid)? > now
        {
            return Err(TokenError::Invalid);
        }
    }
    if let Some(claim) = claims.get("exp")
        && whole_seconds(claim).ok_or(TokenError::Invalid)? <= now
    {
        return Err(TokenError::Expired);
    }
    for name in ["sub", "jti"] {
        if claims.get(name).is_some_and(|claim| !claim.is_string()) {
            return Err(TokenError::Invalid);
        }
    }
    Ok(())
}

/// Whether the claim is false in Python.
fn is_falsy(claim: &Value) -> bool {
    match claim {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// A time claim in seconds since 1970. The fraction that RFC 7519 2 allows is dropped.
fn whole_seconds(claim: &Value) -> Option<i64> {
    // A number past 64 bits becomes the first or the last second of them, which no clock shows either.
    #[allow(clippy::cast_possible_truncation)]
    let rounded = || claim.as_f64().map(|seconds| seconds as i64);
    claim.as_i64().or_else(rounded)
}

fn seconds_since_epoch() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_secs().cast_signed())
}

/// 128 random bits as 32 hexadecimal digits.
fn random_token_id() -> jsonwebtoken::errors::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ErrorKind::Signing(error.to_string()))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

// jsonwebtoken leaves the cryptography to a provider. Its own providers include RSA and elliptic curves, which are not used
// here; this one has HS256 only, so no other algorithm can be chosen.
static HS256_PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(Hs256::new(algorithm, key.as_bytes())?)),
    verifier_factory: |algorithm, key| {
        Ok(Box::new(Hs256::new(algorithm, key.try_get_as_bytes()?)?))
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct Hs256(Hmac<Sha256>);

impl Hs256 {
    fn new(algorithm: &Algorithm, secret: &[u8]) -> jsonwebtoken::errors::Result<Hs256> {
        if *algorithm != Algorithm::HS256 {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Hmac::new_from_slice(secret)
            .map(Hs256)
            .map_err(|_| ErrorKind::InvalidKeyFormat.into())
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let mac = self.0.clone().chain_update(message);
        Ok(mac.finalize().into_bytes().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        // Compares in constant time.
        let mac = self.0.clone().chain_update(message);
        mac.verify_slice(signature)
            .map_err(|_| SignatureError::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(lifetime: Duration) -> TokenKeys {
        let key = "a-key-of-the-tests-alone-0123456789".parse().unwrap();
        TokenKeys::new(&key, [], lifetime, lifetime)
    }

    #[test]
    fn only_valid_access_tokens_are_cached_and_only_the_exact_token_hits() {
        let keys = keys(Duration::from_secs(60));
        let (refresh, access) = keys.issue_pair(7, 0).unwrap();
        for _ in 0..2 {
            assert_eq!(keys.verify_access(&access), Ok((Subject::User(7), 0)));
            assert_eq!(keys.verify_access(&refresh), Err(TokenError::WrongType));
            let forged = format!("{access}x");
            assert_eq!(keys.verify_access(&forged), Err(TokenError::Invalid));
        }
        assert_eq!(keys.cache.len(), 1);
    }

    #[test]
    fn cached_token_expires() {
        let keys = keys(Duration::ZERO);
        let (_, access) = keys.issue_pair(7, 0).unwrap();
        let cached = |expires| CachedToken {
            subject: Subject::User(7),
            generation: 0,
            expires,
        };
        let now = seconds_since_epoch();
        keys.cache.insert(access.as_str().into(), cached(now + 60));
        assert_eq!(keys.verify_access(&access), Ok((Subject::User(7), 0)));
        keys.cache.insert(access.as_str().into(), cached(now));
        assert_eq!(keys.verify_access(&access), Err(TokenError::Expired));
    }

    #[test]
    fn only_tokens_of_a_later_generation_carry_it() {
        let keys = keys(Duration::from_secs(60));
        for (generation, carries_claim) in [(0, false), (3, true)] {
            let (refresh, access) = keys.issue_pair(7, generation).unwrap();
            assert_eq!(
                keys.verify_access(&access),
                Ok((Subject::User(7), generation))
            );
            let claims = keys.verify(&refresh, TokenType::Refresh).unwrap();
            assert_eq!(claims.0.contains_key(GENERATION_CLAIM), carries_claim);
            let refreshed = keys.issue_access(claims).unwrap();
            assert_eq!(
                keys.verify_access(&refreshed),
                Ok((Subject::User(7), generation))
            );
        }
    }

    #[test]
    fn generation_that_is_no_whole_number_is_that_of_no_user() {
        for claim in [Value::Null, "1".into(), 1.5.into(), true.into()] {
            let claims = Claims(Map::from_iter([(GENERATION_CLAIM.into(), claim)]));
            assert_eq!(claims.generation(), -1);
        }
    }

    #[test]
    fn expiry_past_the_year_9999_is_its_end() {
        for (expires, stored) in [
            (Value::from(5), 5),
            (u64::MAX.into(), LATEST_EXPIRY),
            (1e300.into(), LATEST_EXPIRY),
        ] {
            let claims = Claims(Map::from_iter([("exp".into(), expires)]));
            assert_eq!(claims.expires(), stored);
        }
    }
}
