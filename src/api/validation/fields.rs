//! Serializer fields: from raw values to typed ones, by the rules and with the messages of Django REST framework. Does not
//! depend on the syntax of bodies or on the database.
use std::borrow::Cow;

use super::body::{BodyData, BodyValue};
use crate::api::error::{ApiError, FieldErrors, Message};
use crate::python_text;

/// A field of text without NUL, which PostgreSQL cannot store, as the framework's CharField.
pub struct CharField {
    /// In bodies and in error responses.
    pub name: &'static str,
    /// Whether a missing field is an error, unless the request is a partial update.
    pub required: bool,
    /// Whether the text may be empty once it is trimmed.
    pub allow_blank: bool,
    /// The message for a value that is neither text nor a number.
    pub invalid: &'static str,
    /// The largest number of code points, if there is a limit.
    pub max_length: Option<usize>,
    /// Validates the text further. Its messages precede those of the length and of NUL.
    pub validate_first: Validator,
    /// Validates the text further. Its messages follow all others.
    pub validate_last: Validator,
}

/// Returns the messages of all errors of a text.
type Validator = fn(&str) -> Vec<&'static str>;

impl CharField {
    /// A required field of text of any length.
    pub const fn new(name: &'static str) -> CharField {
        CharField {
            name,
            required: true,
            allow_blank: false,
            invalid: "Not a valid string.",
            max_length: None,
            validate_first: |_| Vec::new(),
            validate_last: |_| Vec::new(),
        }
    }
}

/// The longest text, in code points, that is parsed as an integer (IntegerField.MAX_STRING_LENGTH).
const MAX_INTEGER_LENGTH: usize = 1000;

/// Validates the fields of one body and collects the errors of all of them, as the framework's Serializer.
pub struct Serializer<'a> {
    data: &'a BodyData,
    /// For PATCH: fields may be missing.
    partial: bool,
    /// The errors so far, in the order in which the fields were validated.
    pub errors: FieldErrors,
}

impl<'a> Serializer<'a> {
    pub fn new(data: &'a BodyData, partial: bool) -> Serializer<'a> {
        Serializer {
            data,
            partial,
            errors: FieldErrors::default(),
        }
    }

    /// The text of a field, trimmed; `None` if it is missing or invalid.
    pub fn text(&mut self, field: &CharField) -> Option<String> {
        self.validate(field.name, field.required, |value| {
            validate_text(value, field)
        })
    }

    /// The value of a field of a 32-bit integer, as the framework's IntegerField, which is required; `None` if it is missing
    /// or invalid.
    pub fn integer(&mut self, name: &'static str) -> Option<i32> {
        self.validate(name, true, validate_integer)
    }

    fn validate<T>(
        &mut self,
        name: &'static str,
        required: bool,
        validate: impl FnOnce(&BodyValue) -> Result<T, Vec<Message>>,
    ) -> Option<T> {
        let value = match self.data.get(name) {
            None if self.partial || !required => return None,
            None => Err(vec!["This field is required.".into()]),
            Some(BodyValue::Null) => Err(vec!["This field may not be null.".into()]),
            Some(value) => validate(value),
        };
        value
            .map_err(|messages| self.errors.add(name, messages))
            .ok()
    }
}

/// The text of a required field, for a body that has no other.
///
/// # Errors
/// [`ApiError::Fields`] with the messages of the field.
pub fn parse_text(data: &BodyData, field: &CharField) -> Result<String, ApiError> {
    let mut serializer = Serializer::new(data, false);
    let text = serializer.text(field);
    serializer.errors.into_result()?;
    Ok(text.unwrap_or_default())
}

/// Text as it was sent, and a number as Python prints it; `None` for other values and for a number past those of floats.
fn to_text(value: &BodyValue) -> Option<Cow<'_, str>> {
    match value {
        BodyValue::Text(text) => Some(text.into()),
        BodyValue::Number(literal) => python_text::format_number(literal).map(Cow::from),
        BodyValue::Null | BodyValue::Boolean | BodyValue::Composite => None,
    }
}

fn validate_text(value: &BodyValue, field: &CharField) -> Result<String, Vec<Message>> {
    let text = to_text(value).ok_or_else(|| vec![field.invalid.into()])?;
    let text = python_text::strip(&text);
    if text.is_empty() {
        return match field.allow_blank {
            true => Ok(String::new()),
            false => Err(vec!["This field may not be blank.".into()]),
        };
    }
    let run = |validate: Validator| validate(text).into_iter().map(Message::from);
    let mut messages: Vec<Message> = run(field.validate_first).collect();
    if let Some(length) = field.max_length
        && text.chars().count() > length
    {
        messages.push(format!("Ensure this field has no more than {length} characters.").into());
    }
    if text.contains('\0') {
        messages.push("Null characters are not allowed.".into());
    }
    messages.extend(run(field.validate_last));
    if messages.is_empty() {
        Ok(text.to_owned())
    } else {
        Err(messages)
    }
}

/// The integer that Python's `int` reads from the value's text, after zeros at the end of a decimal fraction are removed.
fn validate_integer(value: &BodyValue) -> Result<i32, Vec<Message>> {
    if matches!(value, BodyValue::Text(text) if text.chars().count() > MAX_INTEGER_LENGTH) {
        return Err(vec!["String value too large.".into()]);
    }
    let invalid = || vec![Message::from("A valid integer is required.")];
    let text = to_text(value).ok_or_else(invalid)?;
    let without_zeros = text
        .trim_end_matches(python_text::is_space)
        .trim_end_matches('0');
    let whole = without_zeros.strip_suffix('.').unwrap_or(&text);
    let number = python_text::parse_integer(whole).ok_or_else(invalid)?;
    i32::try_from(number).map_err(|_| {
        let (comparison, limit) = if number > 0 {
            ("less", i32::MAX)
        } else {
            ("greater", i32::MIN)
        };
        vec![format!("Ensure this value is {comparison} than or equal to {limit}.").into()]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_A_STRING: &str = "Not a valid string.";

    const TITLE: CharField = CharField {
        max_length: Some(5),
        ..CharField::new("title")
    };

    const YEAR: &str = "year";

    fn text(value: &str) -> BodyValue {
        BodyValue::Text(value.to_owned())
    }

    #[test]
    fn text_is_trimmed_and_numbers_become_text() {
        for (value, expected) in [
            (text(" \u{3000}\u{1c}a b\u{85}\n"), "a b"),
            (text("\u{200b}"), "\u{200b}"),
            (text("日本日本日"), "日本日本日"),
            (BodyValue::Number("1.50".into()), "1.5"),
            (BodyValue::Number("1e16".into()), "1e+16"),
        ] {
            assert_eq!(
                validate_text(&value, &TITLE),
                Ok(expected.to_owned()),
                "{value:?}"
            );
        }
    }

    #[test]
    fn invalid_text_gets_the_messages_of_all_validators() {
        let too_long = "Ensure this field has no more than 5 characters.";
        for (value, messages) in [
            (text(" \t"), vec!["This field may not be blank."]),
            (text("123456"), vec![too_long]),
            (
                text("12345\0"),
                vec![too_long, "Null characters are not allowed."],
            ),
            (BodyValue::Boolean, vec![NOT_A_STRING]),
            (BodyValue::Composite, vec![NOT_A_STRING]),
            (BodyValue::Number("1E400".into()), vec![NOT_A_STRING]),
        ] {
            let errors = validate_text(&value, &TITLE).unwrap_err();
            assert_eq!(errors, messages, "{value:?}");
        }
    }

    #[test]
    fn integers_are_parsed_from_numbers_and_text() {
        for (value, expected) in [
            (text("2010.000"), 2010),
            (text("2010. \n"), 2010),
            (text(" +0002_010 "), 2010),
            (text("5 .0"), 5),
            (text("٢٠١٠"), 2010),
            (text("100"), 100),
            (BodyValue::Number("2010.0".into()), 2010),
            (BodyValue::Number("1e3".into()), 1000),
            (BodyValue::Number("-0.0".into()), 0),
            (BodyValue::Number("-2147483648".into()), i32::MIN),
        ] {
            assert_eq!(validate_integer(&value), Ok(expected), "{value:?}");
        }
    }

    #[test]
    fn values_that_are_not_32_bit_integers_are_rejected() {
        let invalid = "A valid integer is required.";
        let above = "Ensure this value is less than or equal to 2147483647.";
        let below = "Ensure this value is greater than or equal to -2147483648.";
        let longest = "9".repeat(MAX_INTEGER_LENGTH);
        for (value, message) in [
            (text(""), invalid),
            (text(".0"), invalid),
            (text("1e3"), invalid),
            (text("2__0"), invalid),
            (text("1.0.0"), invalid),
            (BodyValue::Boolean, invalid),
            (BodyValue::Number("1.5".into()), invalid),
            (BodyValue::Number("1E400".into()), invalid),
            (BodyValue::Number("18446744073709551616".into()), above),
            (BodyValue::Number("-2147483649".into()), below),
            (text(&longest), above),
            (text(&format!("9{longest}")), "String value too large."),
        ] {
            assert_eq!(
                validate_integer(&value).unwrap_err(),
                [message],
                "{value:?}"
            );
        }
    }

    #[test]
    fn missing_and_null_fields_have_different_messages() {
        let data = BodyData::from([("year".to_owned(), BodyValue::Null)]);
        let mut serializer = Serializer::new(&data, false);
        assert_eq!(serializer.text(&TITLE), None);
        assert_eq!(serializer.integer(YEAR), None);
        let mut expected = FieldErrors::default();
        expected.add("title", vec!["This field is required.".into()]);
        expected.add("year", vec!["This field may not be null.".into()]);
        assert_eq!(serializer.errors, expected);
    }

    #[test]
    fn missing_field_is_valid_if_it_is_not_required_or_the_update_is_partial() {
        let data = BodyData::from([("year".to_owned(), BodyValue::Null)]);
        let optional = CharField {
            required: false,
            ..TITLE
        };
        let mut serializer = Serializer::new(&data, false);
        assert_eq!(serializer.text(&optional), None);
        assert!(serializer.errors.is_empty());
        let mut serializer = Serializer::new(&data, true);
        assert_eq!(serializer.text(&TITLE), None);
        assert!(serializer.errors.is_empty());
        assert_eq!(serializer.integer(YEAR), None);
        assert!(!serializer.errors.is_empty());
    }
}
