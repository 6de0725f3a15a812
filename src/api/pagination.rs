//! Pagination as Django REST framework's PageNumberPagination: the requested page, and the envelope with absolute links.
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::validation::filters::QueryParameters;
use super::validation::urlencoded;
use crate::db::movies::PageRequest;
use crate::python_text;

/// The number of results on a page without a valid `page_size`.
pub const DEFAULT_PAGE_SIZE: i64 = 10;

/// A larger `page_size` means this one.
pub const MAX_PAGE_SIZE: i64 = 100;

/// Larger page numbers mean this one. It is past the last page of any list, and times [`MAX_PAGE_SIZE`] does not overflow.
const MAX_PAGE_NUMBER: i64 = 1 << 53;

/// The largest number of digits that Python's `int` parses (sys.int_info.default_max_str_digits).
const MAX_DIGITS: usize = 4300;

/// One page of a list.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
pub struct Page<T> {
    /// The number of results on all pages.
    #[schema(example = 1)]
    count: i64,
    #[schema(required, example = json!(null))]
    next: Option<String>,
    #[schema(required, example = json!(null))]
    previous: Option<String>,
    results: Vec<T>,
}

/// The requested page, from `page`, a number from 1 or `last`, and from `page_size`, whose invalid values are ignored.
///
/// # Errors
/// [`ApiError::InvalidPage`] if the page is neither a number from 1 nor `last`.
pub fn parse_page(parameters: &QueryParameters) -> Result<PageRequest, ApiError> {
    let size = parameters
        .get("page_size")
        .and_then(parse_integer)
        .filter(|size| *size > 0)
        .map_or(DEFAULT_PAGE_SIZE, |size| size.min(MAX_PAGE_SIZE));
    let number = match parameters.get("page") {
        None | Some("") => Some(1),
        Some("last") => None,
        Some(page) => match parse_integer(page) {
            Some(number) if number >= 1 => Some(number.min(MAX_PAGE_NUMBER)),
            _ => return Err(ApiError::InvalidPage),
        },
    };
    Ok(PageRequest { number, size })
}

fn parse_integer(text: &str) -> Option<i64> {
    let digits = text
        .chars()
        .filter(|character| character.is_numeric())
        .count();
    python_text::parse_integer(text).filter(|_| digits <= MAX_DIGITS)
}

impl<T> Page<T> {
    /// A page of `count` results. `list_url` is the URL of the list without a query; links keep the other parameters.
    ///
    /// # Errors
    /// [`ApiError::InvalidPage`] for a page past the last one. Page 1 always exists.
    pub fn new(
        count: i64,
        results: Vec<T>,
        request: PageRequest,
        list_url: &str,
        parameters: &QueryParameters,
    ) -> Result<Page<T>, ApiError> {
        let full_pages = count / request.size;
        let last = (full_pages + i64::from(count % request.size != 0)).max(1);
        let number = request.number.unwrap_or(last);
        if number > last {
            return Err(ApiError::InvalidPage);
        }
        let link_to = |number: i64| match link_query(parameters, number).as_str() {
            "" => list_url.to_owned(),
            query => format!("{list_url}?{query}"),
        };
        Ok(Page {
            count,
            next: (number < last).then(|| link_to(number + 1)),
            previous: (number > 1).then(|| link_to(number - 1)),
            results,
        })
    }
}

/// The query of a link to another page: all parameters sorted by name, values of one name in their order, with `page`
/// replaced, or removed for page 1 (rest_framework.utils.urls).
fn link_query(parameters: &QueryParameters, page: i64) -> String {
    let page_text = page.to_string();
    let mut pairs: Vec<(&str, &str)> = parameters
        .iter()
        .filter(|(name, _)| *name != "page")
        .collect();
    if page != 1 {
        pairs.push(("page", &page_text));
    }
    pairs.sort_by_key(|(name, _)| *name);
    let encoded: Vec<String> = pairs
        .iter()
        .map(|(name, value)| {
            let name = urlencoded::encode(name);
            format!("{name}={}", urlencoded::encode(value))
        })
        .collect();
    encoded.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(
        count: i64,
        number: Option<i64>,
        query: &str,
    ) -> Option<(Option<String>, Option<String>)> {
        let request = PageRequest { number, size: 10 };
        let parameters = QueryParameters::parse(query);
        let page: Page<i64> =
            Page::new(count, Vec::new(), request, "http://h/m/", &parameters).ok()?;
        Some((page.next, page.previous))
    }

    #[test]
    fn links_lead_to_the_next_and_previous_page() {
        let link = |query: &str| Some(format!("http://h/m/{query}"));
        assert_eq!(links(10, Some(1), ""), Some((None, None)));
        assert_eq!(links(21, Some(1), ""), Some((link("?page=2"), None)));
        assert_eq!(
            links(21, Some(2), "page=2"),
            Some((link("?page=3"), link("")))
        );
        assert_eq!(
            links(21, None, "page=last&x=1"),
            Some((None, link("?page=2&x=1")))
        );
        assert_eq!(links(0, None, ""), Some((None, None)));
        assert_eq!(links(0, Some(2), ""), None);
        assert_eq!(links(20, Some(3), ""), None);
    }

    #[test]
    fn links_sort_names_and_keep_the_order_of_values() {
        let parameters = QueryParameters::parse("b=2&a=9&page=7&b=1&B=0&q=~*-._!%20%C3%A9");
        assert_eq!(
            link_query(&parameters, 3),
            "B=0&a=9&b=2&b=1&page=3&q=~%2A-._%21+%C3%A9"
        );
        assert_eq!(
            link_query(&parameters, 1),
            "B=0&a=9&b=2&b=1&q=~%2A-._%21+%C3%A9"
        );
    }

    #[test]
    fn page_is_a_number_from_one_or_last() {
        let page = |query: &str| parse_page(&QueryParameters::parse(query)).ok();
        let some = |number, size| Some(PageRequest { number, size });
        assert_eq!(page(""), some(Some(1), 10));
        assert_eq!(page("page=%202%20&page_size=1000"), some(Some(2), 100));
        assert_eq!(page("page=last&page_size=-1"), some(None, 10));
        assert_eq!(page("page=7&page="), some(Some(1), 10));
        assert_eq!(
            page("page=99999999999999999999"),
            some(Some(MAX_PAGE_NUMBER), 10)
        );
        for invalid in [
            "page=0",
            "page=+",
            "page=-1",
            "page=1.0",
            "page=LAST",
            "page=0x1",
            "page=1,2",
        ] {
            assert_eq!(page(invalid), None, "{invalid}");
        }
    }
}
