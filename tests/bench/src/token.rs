//! Access tokens (JWT with HS256): made for the requests, checked by the axum peer.
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// One day, longer than any run.
const LIFETIME_SECONDS: u64 = 86_400;

/// The signing key after HMAC's first hash of its pads, which clones reuse for every token.
pub struct Key(Hmac<Sha256>);

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    token_type: String,
    exp: u64,
    iat: u64,
    jti: String,
    user_id: String,
}

impl Key {
    pub fn new(secret: &str) -> anyhow::Result<Key> {
        let mac = Hmac::new_from_slice(secret.as_bytes());
        mac.map(Key)
            .map_err(|_| anyhow!("the signing key is not valid for HS256"))
    }

    /// Makes an access token of the user.
    pub fn sign(&self, user_id: i64) -> anyhow::Result<String> {
        let now = seconds_since_epoch();
        let claims = Claims {
            token_type: "access".to_owned(),
            exp: now + LIFETIME_SECONDS,
            iat: now,
            jti: format!("{user_id:032x}"),
            user_id: user_id.to_string(),
        };
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims)?);
        let message = format!("{header}.{claims}");
        let mac = self.0.clone().chain_update(&message).finalize();
        let signature = URL_SAFE_NO_PAD.encode(mac.into_bytes());
        Ok(format!("{message}.{signature}"))
    }

    /// The user of a valid access token; `None` if the token is not valid.
    pub fn verify(&self, token: &str) -> Option<i64> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let header: Header = decode(header)?;
        if header.alg != "HS256" {
            return None;
        }
        let mut bytes = [0; 32];
        let length = URL_SAFE_NO_PAD.decode_slice(signature, &mut bytes).ok()?;
        let mac = self.0.clone().chain_update(message);
        mac.verify_slice(bytes.get(..length)?).ok()?;
        let claims: Claims = decode(claims)?;
        let now = seconds_since_epoch();
        let is_valid = claims.token_type == "access" && claims.iat <= now && now < claims.exp;
        is_valid.then(|| claims.user_id.parse().ok()).flatten()
    }
}

fn decode<T: for<'a> Deserialize<'a>>(encoded: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn seconds_since_epoch() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_of_the_same_key_are_valid() {
        let key = Key::new("one").unwrap();
        let token = key.sign(42).unwrap();
        assert_eq!(key.verify(&token), Some(42));
        assert_eq!(Key::new("two").unwrap().verify(&token), None);
        assert_eq!(key.verify(&token[..token.len() - 1]), None);
    }
}
