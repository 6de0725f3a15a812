//! A request's body as named raw values: media type, JSON, forms. Knows no fields and no rules of theirs.
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;

use rouille::Request;
use serde_json::value::RawValue;

use super::error::Error;
use super::{headers, query};

/// How deep a body may be nested. The framework gives up near 1,000 levels with a fault of its own.
const DEPTH_LIMIT: usize = 900;

/// What was sent for one field, before any rule is applied.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON's null.
    Null,
    /// true or false.
    Boolean,
    /// A JSON number in its own digits.
    Number(String),
    /// A JSON string, or a form's value.
    Text(String),
    /// A list or an object.
    Compound,
}

/// The fields of a body by name; of repeated names the last counts.
pub type Fields = HashMap<String, Value>;

/// The fields that the request's body holds. No body at all counts as an empty form.
///
/// # Errors
/// 415 for a media type that is neither JSON nor a form, 400 for broken syntax and for JSON that is no object.
pub fn read_fields(request: &Request) -> Result<Fields, Error> {
    let mut bytes = Vec::new();
    if let Some(mut body) = request.data() {
        // The server has the body in memory already; an error here is a client that went away.
        body.read_to_end(&mut bytes)
            .map_err(|_| Error::Syntax("the body ended early".into()))?;
    }
    if bytes.is_empty() {
        return Ok(Fields::new());
    }
    let mut types = headers::find_all(request, "Content-Type");
    let content_type = types.next().unwrap_or_default();
    if types.any(|other| other != content_type) {
        // Readers differ in which of them counts, so neither does.
        let joined = headers::find_joined(request, "Content-Type").unwrap_or_default();
        return Err(Error::UnsupportedMediaType(joined.into_owned()));
    }
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        parse_json(&bytes)
    } else if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        query::check_field_count(&bytes)?;
        let pairs = query::parse_pairs(&bytes).into_iter();
        Ok(pairs
            .map(|(name, value)| (name, Value::Text(value)))
            .collect())
    } else {
        Err(Error::UnsupportedMediaType(content_type.to_owned()))
    }
}

fn parse_json(bytes: &[u8]) -> Result<Fields, Error> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::Syntax(format!("invalid UTF-8: {error}").into()))?;
    check_depth(text)?;
    // RawValue checks the syntax of all there is, and neither recurses nor turns numbers into floats.
    let whole: &RawValue = serde_json::from_str(text).map_err(syntax)?;
    let kind = match parse_value(whole)? {
        Value::Compound if whole.get().starts_with('{') => {
            let members: HashMap<Cow<str>, &RawValue> =
                serde_json::from_str(whole.get()).map_err(syntax)?;
            let fields = members.into_iter();
            return fields
                .map(|(name, value)| Ok((name.into_owned(), parse_value(value)?)))
                .collect();
        }
        Value::Null => return Err(Error::NonField("No data provided".into())),
        Value::Compound => "list",
        Value::Text(_) => "str",
        Value::Boolean => "bool",
        Value::Number(number) if number.contains(['.', 'e', 'E']) => "float",
        Value::Number(_) => "int",
    };
    let message = format!("Invalid data. Expected a dictionary, but got {kind}.");
    Err(Error::NonField(message.into()))
}

fn parse_value(raw: &RawValue) -> Result<Value, Error> {
    let text = raw.get();
    Ok(match text.bytes().next() {
        Some(b'"') => Value::Text(serde_json::from_str(text).map_err(syntax)?),
        Some(b'{' | b'[') => Value::Compound,
        Some(b't' | b'f') => Value::Boolean,
        Some(b'n') => Value::Null,
        _ => Value::Number(text.to_owned()),
    })
}

/// Refuses nesting past the limit, before anything is built from it.
fn check_depth(text: &str) -> Result<(), Error> {
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
        if depth > DEPTH_LIMIT {
            return Err(Error::Syntax("nested too deep".into()));
        }
    }
    Ok(())
}

fn syntax(error: serde_json::Error) -> Error {
    Error::Syntax(error.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(content_type: Option<&str>, body: &str) -> Result<Fields, Error> {
        let headers = content_type.map(|value| ("Content-Type".to_owned(), value.to_owned()));
        let headers = headers.into_iter().collect();
        read_fields(&Request::fake_http(
            "POST",
            "/",
            headers,
            body.as_bytes().to_vec(),
        ))
    }

    fn refusal(content_type: &str, body: &str) -> String {
        match send(Some(content_type), body) {
            Ok(fields) => format!("{fields:?}"),
            Err(error) => format!("{} {error}", error.status()),
        }
    }

    #[test]
    fn values_keep_their_kind_and_numbers_their_digits() {
        let body = r#"{"a": null, "b": true, "c": 1.50, "d": "x\u00e9", "e": [1], "a": 123456789012345678901}"#;
        let fields = send(Some("Application/JSON; charset=utf-8"), body).unwrap();
        assert_eq!(fields["a"], Value::Number("123456789012345678901".into()));
        assert_eq!(fields["b"], Value::Boolean);
        assert_eq!(fields["c"], Value::Number("1.50".into()));
        assert_eq!(fields["d"], Value::Text("xé".into()));
        assert_eq!(fields["e"], Value::Compound);
    }

    #[test]
    fn what_is_no_object_is_named() {
        for (body, kind) in [
            ("[]", "list"),
            ("1", "int"),
            ("1e2", "float"),
            ("\"\"", "str"),
            ("true", "bool"),
        ] {
            let told = refusal("application/json", body);
            assert!(
                told.ends_with(&format!("but got {kind}.")),
                "{body}: {told}"
            );
        }
        assert_eq!(
            refusal("application/json", "null"),
            "400 body refused: No data provided"
        );
    }

    #[test]
    fn broken_syntax_is_refused() {
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
            let told = refusal("application/json", body);
            assert!(told.starts_with("400 JSON parse error - "), "{told}");
        }
    }

    #[test]
    fn nesting_below_the_limit_is_read() {
        let body = format!(
            "{{\"x\": {}{}, \"y\": \"[[\"}}",
            "[".repeat(899),
            "]".repeat(899)
        );
        assert_eq!(
            send(Some("application/json"), &body).unwrap()["x"],
            Value::Compound
        );
    }

    #[test]
    fn no_body_is_an_empty_form_and_a_type_is_needed_for_any_other() {
        assert!(send(None, "").unwrap().is_empty());
        assert!(send(Some("text/plain"), "").unwrap().is_empty());
        assert!(
            matches!(send(None, "{}"), Err(Error::UnsupportedMediaType(sent)) if sent.is_empty())
        );
        assert!(matches!(
            send(Some("text/json"), "{}"),
            Err(Error::UnsupportedMediaType(_))
        ));
    }
}
