//! The query parameters of a list: its filters, by the rules of django-filter, and access to the others for pagination.
use std::ops::RangeInclusive;

use super::urlencoded::{check_field_count, parse_pairs};
use crate::api::error::{ApiError, FieldErrors};
use crate::db::movies::Filter;
use crate::python_text::{self, Decimal};

/// The parameters of a request's query, decoded, in their order.
pub struct QueryParameters(Vec<(String, String)>);

impl QueryParameters {
    /// Decodes the part of a URL that follows the question mark.
    pub fn parse(raw_query: &str) -> QueryParameters {
        QueryParameters(parse_pairs(raw_query.as_bytes()))
    }

    /// All names and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The last value of this name, as Django's QueryDict returns it.
    pub fn get(&self, name: &str) -> Option<&str> {
        let last = self.0.iter().rev().find(|(given, _)| given == name);
        last.map(|(_, value)| value.as_str())
    }
}

/// The filter of a list, or `None` if no parameter restricts it.
///
/// # Errors
/// 400 with the messages of all invalid filters, or for more parameters than Django reads.
pub fn parse_filter(
    raw_query: &str,
    parameters: &QueryParameters,
) -> Result<Option<Filter>, ApiError> {
    check_field_count(raw_query.as_bytes())?;
    let mut errors = FieldErrors::default();
    let mut char_filter = |name| {
        let value = python_text::strip(parameters.get(name).unwrap_or_default());
        if value.contains('\0') {
            errors.add(name, vec!["Null characters are not allowed.".into()]);
        }
        value.to_owned()
    };
    let title = char_filter("title");
    let genre = char_filter("genre");
    let creator = char_filter("creator__username");
    let mut years = i64::from(i32::MIN)..=i64::from(i32::MAX);
    let mut is_restricted = [&title, &genre, &creator]
        .iter()
        .any(|text| !text.is_empty());
    for (name, matching_years) in YEAR_FILTERS {
        let value = parameters.get(name).unwrap_or_default();
        if value.is_empty() {
            continue;
        }
        match Decimal::parse(python_text::strip(value)) {
            Some(number) => {
                is_restricted = true;
                let matching = matching_years(number);
                years = *years.start().max(matching.start())..=*years.end().min(matching.end());
            }
            None => errors.add(name, vec!["Enter a number.".into()]),
        }
    }
    errors.into_result()?;
    Ok(is_restricted.then_some(Filter {
        title,
        genre,
        creator,
        years,
    }))
}

/// The whole years that a filter with this number matches.
type MatchingYears = fn(Decimal) -> RangeInclusive<i64>;

const YEAR_FILTERS: [(&str, MatchingYears); 3] = [
    ("year", |number| number.ceiling()..=number.floor),
    ("year__gt", |number| {
        number.floor.saturating_add(1)..=i64::MAX
    }),
    ("year__lt", |number| {
        i64::MIN..=number.ceiling().saturating_sub(1)
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &str) -> Result<Option<Filter>, ApiError> {
        parse_filter(query, &QueryParameters::parse(query))
    }

    #[test]
    fn year_filters_become_one_range_and_all_invalid_ones_are_reported() {
        let years = |query: &str| filter(query).unwrap().unwrap().years;
        assert_eq!(years("year__gt=1987&year__lt=1999"), 1988..=1998);
        assert_eq!(years("year__gt=1987.5&year__lt=1999.5"), 1988..=1999);
        assert!(years("year=1995.5").is_empty());
        assert!(years("year__gt=99999999999").is_empty());
        assert!(filter("year=&title=+&x=1").unwrap().is_none());
        let Err(ApiError::Fields(errors)) = filter("year__lt=x&title=%00&year=z") else {
            panic!("invalid filters were accepted")
        };
        let mut expected = FieldErrors::default();
        expected.add("title", vec!["Null characters are not allowed.".into()]);
        expected.add("year", vec!["Enter a number.".into()]);
        expected.add("year__lt", vec!["Enter a number.".into()]);
        assert_eq!(errors, expected);
    }
}
