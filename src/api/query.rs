//! The query of a request's target: pairs decoded and encoded as `application/x-www-form-urlencoded`, the page
//! asked for, the filters. Forms have the same shape, and are read here too.
use std::borrow::Cow;
use std::ops::RangeInclusive;

use rouille::percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::error::{Error, FieldErrors};
use crate::db::movies::{Filter, PageRequest};
use crate::python_text::{self, Decimal};

/// Movies on a page unless the client says otherwise.
pub const DEFAULT_PAGE_SIZE: i64 = 10;

/// Movies on a page at the most.
pub const LARGEST_PAGE_SIZE: i64 = 100;

/// Past any page that could be filled, and far from overflow when multiplied by the size.
const LARGEST_PAGE_NUMBER: i64 = 1 << 53;

/// Fields of a query or a form at the most (Django's DATA_UPLOAD_MAX_NUMBER_FIELDS).
pub const MAX_FIELDS: usize = 1000;

/// Digits of a page's number or size at the most; of more Python's `int` makes no number.
const MAX_DIGITS: usize = 4300;

/// What Python's `urlencode` encodes: all but letters, digits and `_.-~`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'-')
    .remove(b'~')
    .remove(b' ');

/// Whether the query or form is one that is read; empty fields count, as they do in Python's `parse_qsl`.
///
/// # Errors
/// [`Error::TooManyFields`].
pub fn check_field_count(encoded: &[u8]) -> Result<(), Error> {
    let separators = encoded.iter().filter(|byte| **byte == b'&').count();
    if separators >= MAX_FIELDS {
        return Err(Error::TooManyFields(MAX_FIELDS));
    }
    Ok(())
}

/// The names and values of an encoded text, in its order: plus is a space, `&` alone separates, a broken percent
/// stays as it is, invalid UTF-8 becomes U+FFFD, a name without `=` has an empty value.
pub fn parse_pairs(encoded: &[u8]) -> Vec<(String, String)> {
    encoded
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let mut decode = || decode(halves.next().unwrap_or_default());
            (decode(), decode())
        })
        .collect()
}

fn decode(encoded: &[u8]) -> String {
    let spaced: Vec<u8> = encoded
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

/// The text with every byte encoded that needs it; a space is a plus.
fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED)
        .to_string()
        .replace(' ', "+")
}

/// The query of one request.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what follows the question mark.
    pub fn parse(raw_query: &str) -> Query {
        Query(parse_pairs(raw_query.as_bytes()))
    }

    /// The parameter's value; of a repeated one the last counts.
    fn get(&self, name: &str) -> Option<&str> {
        let last = self.0.iter().rev().find(|(given, _)| given == name);
        last.map(|(_, value)| value.as_str())
    }

    /// The query of another page's link: all parameters sorted by name, values of one name in their order, `page`
    /// replaced; page 1 has none (rest_framework.utils.urls).
    pub fn link_to(&self, page: i64) -> String {
        let mut pairs: Vec<(&str, Cow<str>)> = self
            .0
            .iter()
            .filter(|(name, _)| name != "page")
            .map(|(name, value)| (name.as_str(), Cow::from(value)))
            .collect();
        if page != 1 {
            pairs.push(("page", page.to_string().into()));
        }
        pairs.sort_by_key(|(name, _)| *name);
        let encoded: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        encoded.join("&")
    }

    /// The page asked for: its number from 1 or `last`, its size capped, a size that makes no sense ignored.
    ///
    /// # Errors
    /// 404 for a page that is no number from 1.
    pub fn page(&self) -> Result<PageRequest, Error> {
        let size = self
            .get("page_size")
            .and_then(parse_integer)
            .filter(|size| *size > 0)
            .map_or(DEFAULT_PAGE_SIZE, |size| size.min(LARGEST_PAGE_SIZE));
        let number = match self.get("page") {
            None | Some("") => Some(1),
            Some("last") => None,
            Some(given) => match parse_integer(given) {
                Some(number) if number >= 1 => Some(number.min(LARGEST_PAGE_NUMBER)),
                _ => return Err(Error::InvalidPage),
            },
        };
        Ok(PageRequest { number, size })
    }

    /// What the list is to be narrowed to, if to anything.
    ///
    /// # Errors
    /// 400 that names every bad filter.
    pub fn filter(&self) -> Result<Option<Filter>, Error> {
        let mut errors = FieldErrors::default();
        let mut contains = |name| {
            let value = python_text::strip(self.get(name).unwrap_or_default());
            if value.contains('\0') {
                errors.add(name, vec!["Null characters are not allowed.".into()]);
            }
            value.to_owned()
        };
        let title = contains("title");
        let genre = contains("genre");
        let creator = contains("creator__username");
        let mut years = i64::from(i32::MIN)..=i64::from(i32::MAX);
        let mut is_narrowed = false;
        for (name, keep) in YEAR_FILTERS {
            let value = self.get(name).unwrap_or_default();
            if value.is_empty() {
                continue;
            }
            match Decimal::parse(python_text::strip(value)) {
                Some(number) => {
                    is_narrowed = true;
                    let kept = keep(number);
                    years = *years.start().max(kept.start())..=*years.end().min(kept.end());
                }
                None => errors.add(name, vec!["Enter a number.".into()]),
            }
        }
        errors.into_result()?;
        is_narrowed |= [&title, &genre, &creator]
            .iter()
            .any(|text| !text.is_empty());
        Ok(is_narrowed.then_some(Filter {
            title,
            genre,
            creator,
            years,
        }))
    }
}

/// Which whole years each filter keeps, as an inclusive range.
type KeepYears = fn(Decimal) -> RangeInclusive<i64>;

const YEAR_FILTERS: [(&str, KeepYears); 3] = [
    ("year", |number| number.ceiling()..=number.floor),
    ("year__gt", |number| {
        number.floor.saturating_add(1)..=i64::MAX
    }),
    ("year__lt", |number| {
        i64::MIN..=number.ceiling().saturating_sub(1)
    }),
];

fn parse_integer(text: &str) -> Option<i64> {
    let digits = text.chars().filter(|letter| letter.is_numeric()).count();
    python_text::parse_integer(text).filter(|_| digits <= MAX_DIGITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_as_forms_are() {
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

    #[test]
    fn links_sort_names_and_keep_the_order_of_values() {
        let query = Query::parse("b=2&a=9&page=7&b=1&B=0&q=~*-._!%20%C3%A9");
        assert_eq!(
            query.link_to(3),
            "B=0&a=9&b=2&b=1&page=3&q=~%2A-._%21+%C3%A9"
        );
        assert_eq!(query.link_to(1), "B=0&a=9&b=2&b=1&q=~%2A-._%21+%C3%A9");
    }

    #[test]
    fn pages_are_numbers_from_one_or_last() {
        let page = |query: &str| Query::parse(query).page().ok();
        let some = |number, size| Some(PageRequest { number, size });
        assert_eq!(page(""), some(Some(1), 10));
        assert_eq!(page("page=%202%20&page_size=1000"), some(Some(2), 100));
        assert_eq!(page("page=last&page_size=-1"), some(None, 10));
        assert_eq!(page("page=7&page="), some(Some(1), 10));
        assert_eq!(
            page("page=99999999999999999999"),
            some(Some(LARGEST_PAGE_NUMBER), 10)
        );
        for bad in [
            "page=0",
            "page=+",
            "page=-1",
            "page=1.0",
            "page=LAST",
            "page=0x1",
            "page=1,2",
        ] {
            assert_eq!(page(bad), None, "{bad}");
        }
    }

    #[test]
    fn year_filters_become_one_range_and_all_bad_ones_are_named() {
        let years = |query: &str| Query::parse(query).filter().unwrap().unwrap().years;
        assert_eq!(years("year__gt=1987&year__lt=1999"), 1988..=1998);
        assert_eq!(years("year__gt=1987.5&year__lt=1999.5"), 1988..=1999);
        assert!(years("year=1995.5").is_empty());
        assert!(years("year__gt=99999999999").is_empty());
        assert!(
            Query::parse("year=&title=+&x=1")
                .filter()
                .unwrap()
                .is_none()
        );
        let Err(Error::Fields(errors)) = Query::parse("year__lt=x&title=%00&year=z").filter()
        else {
            panic!("bad filters passed")
        };
        let mut expected = FieldErrors::default();
        expected.add("title", vec!["Null characters are not allowed.".into()]);
        expected.add("year", vec!["Enter a number.".into()]);
        expected.add("year__lt", vec!["Enter a number.".into()]);
        assert_eq!(errors, expected);
    }
}
