//! JSON Web Tokens: claims, signing, checking, key rotation. Knows no users, no HTTP and no database.
//!
//! The rules are SimpleJWT 5.5's over PyJWT: HS256 alone, no leeway, the signature judged before the claims.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::auth::signing_key::SigningKey;

/// What a token is for; the claim `token_type` says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opens the movies.
    Access,
    /// Is exchanged for a new access token.
    Refresh,
}

impl Kind {
    fn claim(self) -> &'static str {
        match self {
            Kind::Access => "access",
            Kind::Refresh => "refresh",
        }
    }
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Malformed, of another algorithm, signed with another key, not valid yet, or with odd claims.
    Invalid,
    /// `exp` has passed.
    Expired,
    /// `token_type` names another kind.
    WrongType,
    /// There is no `token_type`.
    NoType,
    /// There is no `jti`.
    NoId,
    /// There is no `exp`.
    NoExpiry,
}

impl Rejection {
    /// SimpleJWT's sentence for it.
    pub fn message(self) -> &'static str {
        match self {
            Rejection::Invalid => "Token is invalid",
            Rejection::Expired => "Token is expired",
            Rejection::WrongType => "Token has wrong type",
            Rejection::NoType => "Token has no type",
            Rejection::NoId => "Token has no id",
            Rejection::NoExpiry => "Token has no 'exp' claim",
        }
    }
}

/// Whom a token speaks for, read from its claim `user_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// There is no such claim.
    Absent,
    /// The claim is what Python takes for false: null, false, zero, or empty.
    Nobody,
    /// The claim holds nothing that could be a user's id.
    Unreadable,
    /// A user's id.
    User(i64),
}

/// The claims of a token whose signature, times, type and id were found good.
#[derive(Clone, Debug)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// The user whom the token speaks for. A string of digits and a whole number are both accepted.
    pub fn subject(&self) -> Subject {
        let id = match self.0.get("user_id") {
            None => return Subject::Absent,
            Some(claim) if is_false(claim) => return Subject::Nobody,
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(Value::Number(number)) => number.as_i64(),
            Some(_) => None,
        };
        id.map_or(Subject::Unreadable, Subject::User)
    }
}

/// Access tokens that were found good and are remembered at once, so that the next request of the same client costs no
/// signature and no JSON. The least used go first; with tokens as they are issued here they take 2 MiB.
const REMEMBERED: usize = 8192;

/// A longer token is judged anew each time. Those that are issued here have 240 bytes.
const LONGEST_REMEMBERED: usize = 512;

/// What is remembered of a token: all that can change of its judgement is that it expires.
#[derive(Clone, Copy)]
struct Remembered {
    subject: Subject,
    expires: i128,
}

/// The secrets that sign and check tokens, and how long tokens live.
pub struct Keys {
    signing: EncodingKey,
    checking: Vec<DecodingKey>,
    validation: Validation,
    access_lifetime: Duration,
    refresh_lifetime: Duration,
    /// By the whole token, under a hash whose key nobody outside knows: nothing can be learnt of it by timing.
    remembered: Cache<Box<str>, Remembered>,
}

impl Keys {
    /// Tokens are signed with `key`; those signed with one of `fallbacks` are accepted too, so that a key
    /// can be replaced without signing everyone out.
    pub fn new<'a>(
        key: &'a SigningKey,
        fallbacks: impl IntoIterator<Item = &'a SigningKey>,
        access_lifetime: Duration,
        refresh_lifetime: Duration,
    ) -> Keys {
        // A second installation finds the same provider in place, so its refusal means nothing.
        _ = HS256_PROVIDER.install_default();
        let mut validation = Validation::new(Algorithm::HS256);
        // The library ignores claims of odd types and allows a minute of leeway: the claims are judged below.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let keys = std::iter::once(key).chain(fallbacks);
        Keys {
            signing: EncodingKey::from_secret(key.as_bytes()),
            checking: keys
                .map(|key| DecodingKey::from_secret(key.as_bytes()))
                .collect(),
            validation,
            access_lifetime,
            refresh_lifetime,
            remembered: Cache::new(REMEMBERED),
        }
    }

    /// A refresh token and an access token for the user, in this order.
    pub fn issue_pair(&self, user_id: i64) -> jsonwebtoken::errors::Result<(String, String)> {
        let claims = Map::from_iter([("user_id".into(), Value::from(user_id.to_string()))]);
        Ok((
            self.sign(Kind::Refresh, claims.clone())?,
            self.sign(Kind::Access, claims)?,
        ))
    }

    /// An access token that speaks for whom the refresh token speaks. Claims that the service does not know are
    /// carried over, as SimpleJWT does.
    pub fn issue_access(&self, refresh: Claims) -> jsonwebtoken::errors::Result<String> {
        self.sign(Kind::Access, refresh.0)
    }

    fn sign(
        &self,
        kind: Kind,
        mut claims: Map<String, Value>,
    ) -> jsonwebtoken::errors::Result<String> {
        let now = seconds_since_epoch();
        let lifetime = match kind {
            Kind::Access => self.access_lifetime,
            Kind::Refresh => self.refresh_lifetime,
        };
        claims.insert("token_type".into(), kind.claim().into());
        claims.insert("exp".into(), now.saturating_add(lifetime.as_secs()).into());
        claims.insert("iat".into(), now.into());
        claims.insert("jti".into(), random_token_id()?.into());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
    }

    /// Whom an access token speaks for, or why it is refused.
    pub fn identify(&self, token: &str) -> Result<Subject, Rejection> {
        let known = self.remembered.get(token);
        if let Some(known) = known.filter(|known| known.expires > i128::from(seconds_since_epoch()))
        {
            return Ok(known.subject);
        }
        let claims = self.check(token, Kind::Access)?;
        let subject = claims.subject();
        let expires = claims.0.get("exp").and_then(whole_seconds);
        if let Some(expires) = expires.filter(|_| token.len() <= LONGEST_REMEMBERED) {
            let known = Remembered { subject, expires };
            self.remembered.insert(token.into(), known);
        }
        Ok(subject)
    }

    /// The claims of a token of the given kind, or why it is refused.
    pub fn check(&self, token: &str, kind: Kind) -> Result<Claims, Rejection> {
        let decoded = self
            .checking
            .iter()
            .find_map(|key| {
                jsonwebtoken::decode::<Map<String, Value>>(token, key, &self.validation).ok()
            })
            .ok_or(Rejection::Invalid)?;
        // RFC 7515 4.1.11: who does not know an extension that a token calls critical refuses it; none is known here.
        if decoded.header.crit.is_some() {
            return Err(Rejection::Invalid);
        }
        let claims = decoded.claims;
        check_times(&claims, seconds_since_epoch())?;
        if !claims.contains_key("exp") {
            return Err(Rejection::NoExpiry);
        }
        if !claims.contains_key("jti") {
            return Err(Rejection::NoId);
        }
        match claims.get("token_type") {
            None => Err(Rejection::NoType),
            Some(Value::String(named)) if named == kind.claim() => Ok(Claims(claims)),
            Some(_) => Err(Rejection::WrongType),
        }
    }
}

/// PyJWT's order: `iat`, `nbf`, `exp`, then the types of `sub` and `jti`.
fn check_times(claims: &Map<String, Value>, now: u64) -> Result<(), Rejection> {
    let now = i128::from(now);
    for name in ["iat", "nbf"] {
        if let Some(claim) = claims.get(name)
            && whole_seconds(claim).ok_or(Rejection::Invalid)? > now
        {
            return Err(Rejection::Invalid);
        }
    }
    if let Some(claim) = claims.get("exp")
        && whole_seconds(claim).ok_or(Rejection::Invalid)? <= now
    {
        return Err(Rejection::Expired);
    }
    for name in ["sub", "jti"] {
        if claims.get(name).is_some_and(|claim| !claim.is_string()) {
            return Err(Rejection::Invalid);
        }
    }
    Ok(())
}

/// Whether Python takes the claim for false.
fn is_false(claim: &Value) -> bool {
    match claim {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// A time claim in seconds since 1970; RFC 7519 2 allows a fraction, which is dropped.
fn whole_seconds(claim: &Value) -> Option<i128> {
    let number = claim.as_number()?;
    if let Some(whole) = number.as_i128() {
        return Some(whole);
    }
    // A float past 64 bits is beyond any clock, whichever way it is rounded.
    #[allow(clippy::cast_possible_truncation)]
    number.as_f64().map(|seconds| seconds as i128)
}

fn seconds_since_epoch() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// 128 random bits as 32 hexadecimal digits.
fn random_token_id() -> jsonwebtoken::errors::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ErrorKind::Signing(error.to_string()))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

// jsonwebtoken leaves the cryptography to a provider. Its own bring RSA and elliptic curves, which nothing here
// uses; this one knows HS256 alone, so no other algorithm can be reached.
static HS256_PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| match algorithm {
        Algorithm::HS256 => Ok(Box::new(Hs256::new(key.as_bytes())?)),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    verifier_factory: |algorithm, key| match algorithm {
        Algorithm::HS256 => Ok(Box::new(Hs256::new(key.try_get_as_bytes()?)?)),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct Hs256(Hmac<Sha256>);

impl Hs256 {
    fn new(secret: &[u8]) -> jsonwebtoken::errors::Result<Hs256> {
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

    fn keys(lifetime: Duration) -> Keys {
        let key = "a-key-of-the-tests-alone-0123456789".parse().unwrap();
        Keys::new(&key, [], lifetime, lifetime)
    }

    #[test]
    fn a_token_is_remembered_only_if_it_is_good_and_only_as_it_is() {
        let keys = keys(Duration::from_secs(60));
        let (refresh, access) = keys.issue_pair(7).unwrap();
        for _ in 0..2 {
            assert_eq!(keys.identify(&access), Ok(Subject::User(7)));
            assert_eq!(keys.identify(&refresh), Err(Rejection::WrongType));
            let forged = format!("{access}x");
            assert_eq!(keys.identify(&forged), Err(Rejection::Invalid));
        }
        assert_eq!(keys.remembered.len(), 1);
    }

    #[test]
    fn a_remembered_token_expires_all_the_same() {
        let keys = keys(Duration::ZERO);
        let (_, access) = keys.issue_pair(7).unwrap();
        let known = |expires| Remembered {
            subject: Subject::User(7),
            expires,
        };
        let now = i128::from(seconds_since_epoch());
        keys.remembered
            .insert(access.as_str().into(), known(now + 60));
        assert_eq!(keys.identify(&access), Ok(Subject::User(7)));
        keys.remembered.insert(access.as_str().into(), known(now));
        assert_eq!(keys.identify(&access), Err(Rejection::Expired));
    }
}
