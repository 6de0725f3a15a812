//! The encoding `application/x-www-form-urlencoded`, as Python's urllib.parse reads and writes it.
use rouille::percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rouille::url::form_urlencoded;

use crate::api::error::ApiError;

/// The largest number of fields in a query or a form (Django's DATA_UPLOAD_MAX_NUMBER_FIELDS).
pub const MAX_FIELDS: usize = 1000;

/// The characters that Python's `urlencode` encodes: all except letters, digits and `_.-~`. The space becomes a plus.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'-')
    .remove(b'~')
    .remove(b' ');

/// Checks the number of fields. Empty fields count, as in Python's `parse_qsl`.
///
/// # Errors
/// [`ApiError::TooManyFields`] for more than [`MAX_FIELDS`].
pub fn check_field_count(encoded: &[u8]) -> Result<(), ApiError> {
    let separators = encoded.iter().filter(|byte| **byte == b'&').count();
    if separators >= MAX_FIELDS {
        return Err(ApiError::TooManyFields(MAX_FIELDS));
    }
    Ok(())
}

/// The names and values in their order. Only `&` separates fields, a plus is a space, an incomplete percent-encoding stays as
/// it is, invalid UTF-8 becomes U+FFFD, and a name without `=` has an empty value.
pub fn parse_pairs(encoded: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(encoded).into_owned().collect()
}

/// Encodes a name or a value.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED)
        .to_string()
        .replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_as_python_does() {
        let pairs = parse_pairs(b"a=1+2&&b&=c&d=%C3%A9%ff%zz%4&t%69tle=x=y;z");
        let expected = [
            ("a", "1 2"),
            ("b", ""),
            ("", "c"),
            ("d", "é\u{fffd}%zz%4"),
            ("title", "x=y;z"),
        ];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
