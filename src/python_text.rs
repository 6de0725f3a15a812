//! Python's rules for white space, digits, integers and floats in text, on which Django REST framework's validation rests.
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// Whether Python's `str.strip` removes the character: Unicode's White_Space and the four information separators.
pub fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Python's `str.strip`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Python's `str.isalnum` for one character: a letter or a number of any script. Combining marks are neither, unlike in
/// `char::is_alphanumeric`.
pub fn is_letter_or_number(character: char) -> bool {
    let group = character.general_category_group();
    matches!(
        group,
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number
    )
}

/// Digits that are not decimal, such as superscripts and circled digits: inclusive ranges of Numeric_Type=Digit in the Unicode
/// Character Database.
const OTHER_DIGITS: [(char, char); 20] = [
    ('\u{b2}', '\u{b3}'),
    ('\u{b9}', '\u{b9}'),
    ('\u{1369}', '\u{1371}'),
    ('\u{19da}', '\u{19da}'),
    ('\u{2070}', '\u{2070}'),
    ('\u{2074}', '\u{2079}'),
    ('\u{2080}', '\u{2089}'),
    ('\u{2460}', '\u{2468}'),
    ('\u{2474}', '\u{247c}'),
    ('\u{2488}', '\u{2490}'),
    ('\u{24ea}', '\u{24ea}'),
    ('\u{24f5}', '\u{24fd}'),
    ('\u{24ff}', '\u{24ff}'),
    ('\u{2776}', '\u{277e}'),
    ('\u{2780}', '\u{2788}'),
    ('\u{278a}', '\u{2792}'),
    ('\u{10a40}', '\u{10a43}'),
    ('\u{10e60}', '\u{10e68}'),
    ('\u{11052}', '\u{1105a}'),
    ('\u{1f100}', '\u{1f10a}'),
];

/// Python's `str.isdigit` for one character.
pub fn is_digit(character: char) -> bool {
    decimal_digit(character).is_some()
        || OTHER_DIGITS
            .iter()
            .any(|&(first, last)| (first..=last).contains(&character))
}

/// The value, 0 to 9, of a decimal digit of any script.
pub fn decimal_digit(character: char) -> Option<u32> {
    if character.is_ascii() {
        return character.to_digit(10);
    }
    if character.general_category() != GeneralCategory::DecimalNumber {
        return None;
    }
    // Unicode encodes the ten digits of a script in a run from zero to nine, and some runs are adjacent, so the value is the
    // distance from the first of the adjacent decimal digits, modulo ten.
    let distance = (0..u32::from(character))
        .rev()
        .map_while(char::from_u32)
        .take_while(|before| before.general_category() == GeneralCategory::DecimalNumber)
        .count();
    u32::try_from(distance % 10).ok()
}

/// Parses an integer as Python's `int` does: it accepts white space around it, a sign, leading zeros, single underscores between
/// digits, and digits of any script. A number past 64 bits becomes `i64::MIN` or `i64::MAX`. The information separators, which
/// `str.strip` removes, are not white space for `int`.
pub fn parse_integer(text: &str) -> Option<i64> {
    parse_signed(text.trim_matches(char::is_whitespace))
}

fn parse_signed(text: &str) -> Option<i64> {
    let (negative, digits) = split_sign(text);
    let mut value: i64 = 0;
    let mut follows_digit = false;
    for character in digits.chars() {
        if character == '_' && follows_digit {
            follows_digit = false;
            continue;
        }
        let digit = i64::from(decimal_digit(character)?);
        value = value.saturating_mul(10).saturating_add(digit);
        follows_digit = true;
    }
    follows_digit.then_some(if negative { -value } else { value })
}

/// Whether there is a minus, and the text after the sign.
fn split_sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(unsigned) => (true, unsigned),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// The whole numbers next to a decimal number. A number past 64 bits becomes `i64::MIN` or `i64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decimal {
    /// The largest whole number that is not greater.
    pub floor: i64,
    is_whole: bool,
}

impl Decimal {
    /// The smallest whole number that is not less.
    pub fn ceiling(self) -> i64 {
        self.floor.saturating_add(i64::from(!self.is_whole))
    }

    /// Parses a finite number as Python's `Decimal` does: it accepts a sign, digits of any script, underscores anywhere, a point
    /// and an exponent.
    pub fn parse(text: &str) -> Option<Decimal> {
        let text = text.replace('_', "");
        let (negative, unsigned) = split_sign(&text);
        let (number, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, parse_signed(exponent)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: Vec<i64> = whole
            .chars()
            .chain(fraction.chars())
            .map(|character| decimal_digit(character).map(i64::from))
            .collect::<Option<_>>()?;
        if digits.is_empty() {
            return None;
        }
        let whole_length = i64::try_from(whole.chars().count()).ok()?;
        let whole_length = whole_length.saturating_add(exponent).max(0);
        let whole_length = usize::try_from(whole_length).ok()?;
        // The exponent appends zeros. Nineteen of them are past 64 bits unless all digits are zero.
        let whole_digits = digits.iter().chain([&0; 19]).take(whole_length);
        let magnitude = whole_digits.fold(0_i64, |magnitude, digit| {
            magnitude.saturating_mul(10).saturating_add(*digit)
        });
        let is_whole = digits.iter().skip(whole_length).all(|digit| *digit == 0);
        let truncated = if negative { -magnitude } else { magnitude };
        Some(Decimal {
            floor: truncated - i64::from(negative && !is_whole),
            is_whole,
        })
    }
}

/// Formats a JSON number as Python prints the value that it parses from `literal`: integers with all digits, floats in the
/// shortest form of `repr`. `None` if the number is too large for a float.
pub fn format_number(literal: &str) -> Option<String> {
    if !literal.contains(['.', 'e', 'E']) {
        return Some(if literal == "-0" { "0" } else { literal }.to_owned());
    }
    let value: f64 = literal
        .parse()
        .ok()
        .filter(|value: &f64| value.is_finite())?;
    let shortest = format!("{value:e}");
    let (digits, exponent) = shortest.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    // float.__repr__ uses an exponent below 1e-4 and from 1e16 on.
    Some(if (-4..16).contains(&exponent) {
        format!("{value:?}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_parsed_as_python_does() {
        for (text, value) in [
            ("5", Some(5)),
            (" +5\u{c}", Some(5)),
            ("5\u{1f}", None),
            ("\u{85}5\u{a0}", Some(5)),
            ("-0", Some(0)),
            ("0007", Some(7)),
            ("1_000", Some(1000)),
            ("٢٠١٠", Some(2010)),
            ("１９９５", Some(1995)),
            ("𝟙𝟡", Some(19)),
            ("99999999999999999999", Some(i64::MAX)),
            ("", None),
            ("+", None),
            ("_1", None),
            ("1_", None),
            ("1__0", None),
            ("--5", None),
            ("5 0", None),
            ("0x10", None),
            ("1e3", None),
            ("²", None),
        ] {
            assert_eq!(parse_integer(text), value, "{text:?}");
        }
    }

    #[test]
    fn value_of_a_decimal_digit_is_its_position_in_its_run() {
        let mut previous = None;
        for character in (0x80..=0x10ffff).filter_map(char::from_u32) {
            let is_decimal = character.general_category() == GeneralCategory::DecimalNumber;
            let value = decimal_digit(character);
            assert_eq!(value.is_some(), is_decimal, "{character:?}");
            let follows: Option<u32> = previous.map(|last| (last + 1) % 10);
            if let (Some(value), Some(follows)) = (value, follows) {
                assert_eq!(value, follows, "{character:?}");
            } else if let Some(value) = value {
                assert_eq!(value, 0, "{character:?} starts a run");
            }
            previous = value;
        }
    }

    #[test]
    fn numbers_are_formatted_as_python_does() {
        for (literal, text) in [
            ("12", "12"),
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("1.50", "1.5"),
            ("100.0", "100.0"),
            ("1e3", "1000.0"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("1.25E+22", "1.25e+22"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("5e-324", "5e-324"),
            ("1e100", "1e+100"),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567890",
            ),
        ] {
            assert_eq!(format_number(literal).as_deref(), Some(text), "{literal}");
        }
        assert_eq!(format_number("1E400"), None);
    }

    #[test]
    fn decimals_are_parsed_as_python_does() {
        for (text, floor, is_whole) in [
            ("1995", 1995, true),
            ("+1995.0", 1995, true),
            ("1.995e3", 1995, true),
            ("1995.5", 1995, false),
            ("-0.5", -1, false),
            ("-5", -5, true),
            (".5", 0, false),
            ("5.", 5, true),
            ("19950e-1", 1995, true),
            ("5e-99999999999999999999", 0, false),
            ("1e999999", i64::MAX, true),
            ("0e999999", 0, true),
            ("1_995", 1995, true),
            ("١٩٩٥", 1995, true),
        ] {
            assert_eq!(
                Decimal::parse(text),
                Some(Decimal { floor, is_whole }),
                "{text}"
            );
        }
        for invalid in [
            "", ".", "abc", "NaN", "Infinity", "0x7cb", "1,995", "1e", "--1", "1.2.3", "1 2",
        ] {
            assert_eq!(Decimal::parse(invalid), None, "{invalid}");
        }
    }
}
