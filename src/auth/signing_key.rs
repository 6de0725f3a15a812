//! A key that signs tokens: long enough for HS256, and of a type that cannot be printed.
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};

/// The fewest bytes of a key: as many as HMAC-SHA-256 puts out (RFC 7518 3.2).
const MIN_BYTES: usize = 32;

/// A key of [`MIN_BYTES`] or more, without white space around it. `Debug` does not show it, and it has no `Display`.
#[derive(Clone, Debug)]
pub struct SigningKey(SecretString);

/// The text is blank, or too short for a key.
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
    /// For the code that signs and checks.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_trimmed_and_has_32_bytes_or_more() {
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
    fn a_key_is_not_shown_by_debug() {
        let key: SigningKey = "hunter2-hunter2-hunter2-hunter2-hunter2".parse().unwrap();
        assert!(!format!("{key:?} {key:#?}").contains("hunter2"));
    }
}
