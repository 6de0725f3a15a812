//! From a request's body, JSON or a form, to named values. Does not depend on fields and their rules.
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;

use rouille::Request;
use serde_json::value::RawValue;

use super::urlencoded;
use crate::api::error::ApiError;
use crate::api::headers;

/// The largest depth of nested lists and objects. Django REST framework fails with status 500 near 1,000 levels.
const MAX_DEPTH: usize = 900;

/// The value of a field as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub enum BodyValue {
    /// JSON's null.
    Null,
    /// JSON's true or false.
    Boolean,
    /// A JSON number, with the digits that were sent.
    Number(String),
    /// A JSON string, or a form's value.
    Text(String),
    /// A JSON array or object. No field takes one, so its content is dropped.
    Composite,
}

/// The values of a body by field name. The last value of a repeated name counts.
pub type BodyData = HashMap<String, BodyValue>;

/// Parses the request's body. An empty body is an empty form, whatever its media type.
///
/// # Errors
/// 415 for a media type other than JSON and forms, 400 for a syntax error and for JSON that is not an object.
pub fn parse_body(request: &Request) -> Result<BodyData, ApiError> {
    let mut bytes = Vec::new();
    if let Some(mut body) = request.data() {
        // The HTTP server has the whole body in memory, so this does not wait, and fails only for another server.
        body.read_to_end(&mut bytes)
            .map_err(|_| ApiError::JsonSyntax("the body ended early".into()))?;
    }
    if bytes.is_empty() {
        return Ok(BodyData::new());
    }
    let mut content_types = headers::all(request, "Content-Type");
    let content_type = content_types.next().unwrap_or_default();
    if content_types.any(|other| other != content_type) {
        // Implementations differ in which of several values counts, so a request with two is rejected.
        let joined = headers::joined(request, "Content-Type").unwrap_or_default();
        return Err(ApiError::UnsupportedMediaType(joined.into_owned()));
    }
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        parse_json(&bytes)
    } else if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        urlencoded::check_field_count(&bytes)?;
        let pairs = urlencoded::parse_pairs(&bytes).into_iter();
        Ok(pairs
            .map(|(name, value)| (name, BodyValue::Text(value)))
            .collect())
    } else {
        Err(ApiError::UnsupportedMediaType(content_type.to_owned()))
    }
}

fn parse_json(bytes: &[u8]) -> Result<BodyData, ApiError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ApiError::JsonSyntax(format!("invalid UTF-8: {error}").into()))?;
    check_depth(text)?;
    // RawValue checks the syntax without recursion and keeps the digits of numbers.
    let document: &RawValue = serde_json::from_str(text).map_err(syntax_error)?;
    let python_type = match parse_value(document)? {
        BodyValue::Composite if document.get().starts_with('{') => {
            let members: HashMap<Cow<str>, &RawValue> =
                serde_json::from_str(document.get()).map_err(syntax_error)?;
            let members = members.into_iter();
            return members
                .map(|(name, value)| Ok((name.into_owned(), parse_value(value)?)))
                .collect();
        }
        BodyValue::Null => return Err(ApiError::of_field("non_field_errors", "No data provided")),
        BodyValue::Composite => "list",
        BodyValue::Text(_) => "str",
        BodyValue::Boolean => "bool",
        BodyValue::Number(number) if number.contains(['.', 'e', 'E']) => "float",
        BodyValue::Number(_) => "int",
    };
    let message = format!("Invalid data. Expected a dictionary, but got {python_type}.");
    Err(ApiError::of_field("non_field_errors", message))
}

fn parse_value(raw: &RawValue) -> Result<BodyValue, ApiError> {
    let text = raw.get();
    Ok(match text.bytes().next() {
        Some(b'"') => BodyValue::Text(serde_json::from_str(text).map_err(syntax_error)?),
        Some(b'{' | b'[') => BodyValue::Composite,
        Some(b't' | b'f') => BodyValue::Boolean,
        Some(b'n') => BodyValue::Null,
        _ => BodyValue::Number(text.to_owned()),
    })
}

/// Rejects JSON that is nested deeper than [`MAX_DEPTH`], before anything is allocated for it.
fn check_depth(text: &str) -> Result<(), ApiError> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(ApiError::JsonSyntax("nested too deep".into()));
        }
    }
    Ok(())
}

fn syntax_error(error: serde_json::Error) -> ApiError {
    ApiError::JsonSyntax(error.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(content_type: Option<&str>, body: &str) -> Result<BodyData, ApiError> {
        let headers = content_type.map(|value| ("Content-Type".to_owned(), value.to_owned()));
        let headers = headers.into_iter().collect();
        parse_body(&Request::fake_http(
            "POST",
            "/",
            headers,
            body.as_bytes().to_vec(),
        ))
    }

    fn describe_outcome(content_type: &str, body: &str) -> String {
        match send(Some(content_type), body) {
            Ok(fields) => format!("{fields:?}"),
            Err(error) => format!("{} {error}", error.status_and_code().0),
        }
    }

    #[test]
    fn values_keep_their_type_and_numbers_their_digits() {
        let body = r#"{"a": null, "b": true, "c": 1.50, "d": "x\u00e9", "e": [1], "a": 123456789012345678901}"#;
        let fields = send(Some("Application/JSON; charset=utf-8"), body).unwrap();
        assert_eq!(
            fields["a"],
            BodyValue::Number("123456789012345678901".into())
        );
        assert_eq!(fields["b"], BodyValue::Boolean);
        assert_eq!(fields["c"], BodyValue::Number("1.50".into()));
        assert_eq!(fields["d"], BodyValue::Text("xé".into()));
        assert_eq!(fields["e"], BodyValue::Composite);
    }

    #[test]
    fn json_that_is_not_an_object_is_rejected_with_its_python_type() {
        for (body, python_type) in [
            ("[]", "list"),
            ("1", "int"),
            ("1e2", "float"),
            ("\"\"", "str"),
            ("true", "bool"),
        ] {
            let outcome = describe_outcome("application/json", body);
            assert!(
                outcome.ends_with(&format!("but got {python_type}.")),
                "{body}: {outcome}"
            );
        }
        assert_eq!(
            describe_outcome("application/json", "null"),
            "400 non_field_errors: No data provided"
        );
    }

    #[test]
    fn invalid_syntax_and_deep_nesting_are_rejected() {
        let deep = "[".repeat(100_000);
        let closed = format!("{{\"x\": {}{}}}", "[".repeat(901), "]".repeat(901));
        for body in [
            "{",
            "{'a': 1}",
            "{} {}",
            "{\"a\": NaN}",
            "{\"a\": 01}",
            "{\"a\": 1,}",
            "   ",
            "\u{feff}{}",
            "{\"a\": \"\\ud800\"}",
            "{\"a\": \"b\nc\"}",
            &deep,
            &closed,
        ] {
            let outcome = describe_outcome("application/json", body);
            assert!(outcome.starts_with("400 JSON parse error - "), "{outcome}");
        }
    }

    #[test]
    fn nesting_up_to_the_limit_is_accepted() {
        let body = format!(
            "{{\"x\": {}{}, \"y\": \"[[\"}}",
            "[".repeat(899),
            "]".repeat(899)
        );
        assert_eq!(
            send(Some("application/json"), &body).unwrap()["x"],
            BodyValue::Composite
        );
    }

    #[test]
    fn empty_body_is_an_empty_form_and_any_other_needs_a_known_media_type() {
        assert!(send(None, "").unwrap().is_empty());
        assert!(send(Some("text/plain"), "").unwrap().is_empty());
        assert!(
            matches!(send(None, "{}"), Err(ApiError::UnsupportedMediaType(sent)) if sent.is_empty())
        );
        assert!(matches!(
            send(Some("text/json"), "{}"),
            Err(ApiError::UnsupportedMediaType(_))
        ));
    }
}
