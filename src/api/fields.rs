//! Raw values to typed ones: Django REST framework's coercions and messages, field by field. Knows no bodies'
//! syntax and no database.
use std::borrow::Cow;

use super::body::{Fields, Value};
use super::error::FieldErrors;
use crate::python_text;

/// What a text has to keep to.
pub enum Rule {
    /// No more code points than this.
    AtMost(usize),
    /// No NUL, which PostgreSQL could not keep.
    WithoutNull,
    /// What this says: one or more messages, or none if all is well.
    Form(fn(&str) -> Vec<Cow<'static, str>>),
}

/// A field of text: the rules of the framework's CharField.
pub struct TextField {
    /// Its name in bodies and in refusals.
    pub name: &'static str,
    /// What is said of a value that is neither text nor a number.
    pub wrong_kind: &'static str,
    /// Whether nothing but white space is fine.
    pub may_be_blank: bool,
    /// All of them judge, in this order.
    pub rules: &'static [Rule],
}

impl TextField {
    /// How many code points it may have, if that is bounded.
    pub fn longest(&self) -> Option<usize> {
        self.rules.iter().find_map(|rule| match rule {
            Rule::AtMost(limit) => Some(*limit),
            Rule::WithoutNull | Rule::Form(_) => None,
        })
    }
}

/// What the framework says of a value that is neither text nor a number.
pub const NOT_A_STRING: &str = "Not a valid string.";

/// The longest text, in code points, that is read as an integer (IntegerField.MAX_STRING_LENGTH).
const LONGEST_INTEGER_TEXT: usize = 1000;

/// Whether fields may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// A missing field is refused.
    Required,
    /// A missing field is none.
    Optional,
}

/// Reads the fields of one body, and gathers what is wrong with them.
pub struct Reader<'a> {
    fields: &'a Fields,
    /// What was wrong so far, in the order of reading.
    pub errors: FieldErrors,
}

impl<'a> Reader<'a> {
    /// A reader of these fields.
    pub fn new(fields: &'a Fields) -> Reader<'a> {
        Reader {
            fields,
            errors: FieldErrors::default(),
        }
    }

    /// The text of a field, trimmed; none if it is missing or wrong.
    pub fn text(&mut self, field: &TextField, presence: Presence) -> Option<String> {
        let outcome = self
            .present(field.name, presence)
            .and_then(|value| value.map(|value| read_text(value, field)).transpose());
        self.keep(field.name, outcome)
    }

    /// The 32-bit integer of a field; none if it is missing or wrong.
    pub fn integer(&mut self, name: &'static str, presence: Presence) -> Option<i32> {
        let outcome = self
            .present(name, presence)
            .and_then(|value| value.map(read_integer).transpose());
        self.keep(name, outcome)
    }

    fn present(
        &self,
        name: &str,
        presence: Presence,
    ) -> Result<Option<&'a Value>, Vec<Cow<'static, str>>> {
        match self.fields.get(name) {
            None if presence == Presence::Optional => Ok(None),
            None => Err(vec!["This field is required.".into()]),
            Some(Value::Null) => Err(vec!["This field may not be null.".into()]),
            Some(value) => Ok(Some(value)),
        }
    }

    fn keep<T>(
        &mut self,
        name: &'static str,
        outcome: Result<Option<T>, Vec<Cow<'static, str>>>,
    ) -> Option<T> {
        outcome.unwrap_or_else(|messages| {
            self.errors.add(name, messages);
            None
        })
    }
}

fn read_text(value: &Value, field: &TextField) -> Result<String, Vec<Cow<'static, str>>> {
    let text = match value {
        Value::Text(text) => python_text::strip(text).to_owned(),
        Value::Number(literal) => {
            python_text::print_number(literal).ok_or_else(|| vec![field.wrong_kind.into()])?
        }
        Value::Null | Value::Boolean | Value::Compound => {
            return Err(vec![field.wrong_kind.into()]);
        }
    };
    if text.is_empty() {
        return if field.may_be_blank {
            Ok(text)
        } else {
            Err(vec!["This field may not be blank.".into()])
        };
    }
    let messages: Vec<_> = field
        .rules
        .iter()
        .flat_map(|rule| judge(rule, &text))
        .collect();
    if messages.is_empty() {
        Ok(text)
    } else {
        Err(messages)
    }
}

fn judge(rule: &Rule, text: &str) -> Vec<Cow<'static, str>> {
    match rule {
        Rule::AtMost(limit) if text.chars().count() > *limit => {
            vec![format!("Ensure this field has no more than {limit} characters.").into()]
        }
        Rule::WithoutNull if text.contains('\0') => vec!["Null characters are not allowed.".into()],
        Rule::AtMost(_) | Rule::WithoutNull => Vec::new(),
        Rule::Form(judge) => judge(text),
    }
}

/// IntegerField: what Python's `int` reads from the value's text, a decimal tail of zeros dropped.
fn read_integer(value: &Value) -> Result<i32, Vec<Cow<'static, str>>> {
    let invalid = || vec![Cow::from("A valid integer is required.")];
    let text = match value {
        Value::Text(text) if text.chars().count() > LONGEST_INTEGER_TEXT => {
            return Err(vec!["String value too large.".into()]);
        }
        Value::Text(text) => text.clone(),
        Value::Number(literal) => python_text::print_number(literal).ok_or_else(invalid)?,
        Value::Null | Value::Boolean | Value::Compound => return Err(invalid()),
    };
    let without_zeros = text
        .trim_end_matches(python_text::is_space)
        .trim_end_matches('0');
    let whole = without_zeros.strip_suffix('.').unwrap_or(&text);
    let number = python_text::parse_integer(whole).ok_or_else(invalid)?;
    i32::try_from(number).map_err(|_| {
        let bound = if number > 0 {
            format!("Ensure this value is less than or equal to {}.", i32::MAX)
        } else {
            format!(
                "Ensure this value is greater than or equal to {}.",
                i32::MIN
            )
        };
        vec![bound.into()]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLE: TextField = TextField {
        name: "title",
        wrong_kind: NOT_A_STRING,
        may_be_blank: false,
        rules: &[Rule::AtMost(5), Rule::WithoutNull],
    };

    fn text(value: &str) -> Value {
        Value::Text(value.to_owned())
    }

    #[test]
    fn text_is_trimmed_and_numbers_become_text() {
        for (value, expected) in [
            (text(" \u{3000}\u{1c}a b\u{85}\n"), "a b"),
            (text("\u{200b}"), "\u{200b}"),
            (text("日本日本日"), "日本日本日"),
            (Value::Number("1.50".into()), "1.5"),
            (Value::Number("1e16".into()), "1e+16"),
        ] {
            assert_eq!(
                read_text(&value, &TITLE),
                Ok(expected.to_owned()),
                "{value:?}"
            );
        }
    }

    #[test]
    fn text_is_refused_with_every_message_that_applies() {
        let too_long = "Ensure this field has no more than 5 characters.";
        for (value, messages) in [
            (text(" \t"), vec!["This field may not be blank."]),
            (text("123456"), vec![too_long]),
            (
                text("12345\0"),
                vec![too_long, "Null characters are not allowed."],
            ),
            (Value::Boolean, vec![NOT_A_STRING]),
            (Value::Compound, vec![NOT_A_STRING]),
            (Value::Number("1E400".into()), vec![NOT_A_STRING]),
        ] {
            let told = read_text(&value, &TITLE).unwrap_err();
            assert_eq!(told, messages, "{value:?}");
        }
    }

    #[test]
    fn integers_are_read_from_numbers_and_text() {
        for (value, expected) in [
            (text("2010.000"), 2010),
            (text("2010. \n"), 2010),
            (text(" +0002_010 "), 2010),
            (text("5 .0"), 5),
            (text("٢٠١٠"), 2010),
            (text("100"), 100),
            (Value::Number("2010.0".into()), 2010),
            (Value::Number("1e3".into()), 1000),
            (Value::Number("-0.0".into()), 0),
            (Value::Number("-2147483648".into()), i32::MIN),
        ] {
            assert_eq!(read_integer(&value), Ok(expected), "{value:?}");
        }
    }

    #[test]
    fn what_is_no_32_bit_integer_is_refused() {
        let invalid = "A valid integer is required.";
        let above = "Ensure this value is less than or equal to 2147483647.";
        let below = "Ensure this value is greater than or equal to -2147483648.";
        let longest = "9".repeat(LONGEST_INTEGER_TEXT);
        for (value, message) in [
            (text(""), invalid),
            (text(".0"), invalid),
            (text("1e3"), invalid),
            (text("2__0"), invalid),
            (text("1.0.0"), invalid),
            (Value::Boolean, invalid),
            (Value::Number("1.5".into()), invalid),
            (Value::Number("1E400".into()), invalid),
            (Value::Number("18446744073709551616".into()), above),
            (Value::Number("-2147483649".into()), below),
            (text(&longest), above),
            (text(&format!("9{longest}")), "String value too large."),
        ] {
            assert_eq!(read_integer(&value).unwrap_err(), [message], "{value:?}");
        }
    }

    #[test]
    fn missing_and_null_fields_are_told_apart() {
        let fields = Fields::from([("year".to_owned(), Value::Null)]);
        let mut reader = Reader::new(&fields);
        assert_eq!(reader.text(&TITLE, Presence::Required), None);
        assert_eq!(reader.text(&TITLE, Presence::Optional), None);
        assert_eq!(reader.integer("year", Presence::Optional), None);
        let mut expected = FieldErrors::default();
        expected.add("title", vec!["This field is required.".into()]);
        expected.add("year", vec!["This field may not be null.".into()]);
        assert_eq!(reader.errors, expected);
    }
}
