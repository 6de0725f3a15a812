//! The secret key that signs tokens: long enough for HS256, and not printable.
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};

/// The minimum length of a key, the size of an HMAC-SHA-256 output (RFC 7518 3.2).
const MIN_BYTES: usize = 32;

/// A key of at least 32 bytes without white space around it. `Debug` does not show it, and it has no `Display`.
#[derive(Clone, Debug)]
pub struct SigningKey(SecretString);

/// The text is too short for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key is {MIN_BYTES} bytes or longer, without the white space around it (RFC 7518 3.2); `openssl rand -hex 32` prints one"
)]
pub struct WeakKey;

impl FromStr for SigningKey {
    type Err = WeakKey;

    fn from_str(text: &str) -> Result<SigningKey, WeakKey> {
        let text = text.trim();
        if text.len() < MIN_BYTES {
            return Err(WeakKey);
        }
        Ok(SigningKey(text.into()))
    }
}

impl SigningKey {
    /// The secret itself, for signing and verification.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_trimmed_and_has_at_least_32_bytes() {
        let key = "0123456789abcdef0123456789abcdef";
        for text in [key, " 0123456789abcdef0123456789abcdef\r\n"] {
            assert_eq!(
                text.parse::<SigningKey>().unwrap().as_bytes(),
                key.as_bytes()
            );
        }
        // 16 characters of two bytes each.
        assert!("éééééééééééééééé".parse::<SigningKey>().is_ok());
        let blank = " ".repeat(40);
        for text in ["", "x", &blank, &key[1..], &format!("{} ", &key[1..])] {
            assert_eq!(
                text.parse::<SigningKey>().map(|_| ()),
                Err(WeakKey),
                "{text:?}"
            );
        }
    }

    #[test]
    fn debug_does_not_show_the_key() {
        let key: SigningKey = "hunter2-hunter2-hunter2-hunter2-hunter2".parse().unwrap();
        assert!(!format!("{key:?} {key:#?}").contains("hunter2"));
    }
}
