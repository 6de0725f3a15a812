//! The pagination envelope by hand: count, absolute links to the next and the previous page, results.
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Error;
use super::query::Query;
use crate::db::movies::{Movie, MoviePage, PageRequest};

/// One page of a list, as Django REST framework's PageNumberPagination answers it.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
pub struct Envelope {
    /// On all pages together.
    #[schema(example = 1)]
    count: i64,
    #[schema(required, example = json!(null))]
    next: Option<String>,
    #[schema(required, example = json!(null))]
    previous: Option<String>,
    results: Vec<Movie>,
}

impl Envelope {
    /// The envelope of this page. `address` is the list's own, without a query.
    ///
    /// # Errors
    /// 404 for a page past the end; page 1 is always there.
    pub fn new(
        page: MoviePage,
        asked: PageRequest,
        address: &str,
        query: &Query,
    ) -> Result<Envelope, Error> {
        let whole_pages = page.total / asked.size + i64::from(page.total % asked.size != 0);
        let last = whole_pages.max(1);
        let number = asked.number.unwrap_or(last);
        if number > last {
            return Err(Error::InvalidPage);
        }
        let link_to = |number: i64| match query.link_to(number).as_str() {
            "" => address.to_owned(),
            query => format!("{address}?{query}"),
        };
        Ok(Envelope {
            count: page.total,
            next: (number < last).then(|| link_to(number + 1)),
            previous: (number > 1).then(|| link_to(number - 1)),
            results: page.movies,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(
        total: i64,
        number: Option<i64>,
        query: &str,
    ) -> Option<(Option<String>, Option<String>)> {
        let page = MoviePage {
            total,
            movies: Vec::new(),
        };
        let asked = PageRequest { number, size: 10 };
        let envelope = Envelope::new(page, asked, "http://h/m/", &Query::parse(query)).ok()?;
        Some((envelope.next, envelope.previous))
    }

    #[test]
    fn links_lead_to_the_neighbours() {
        let link = |query: &str| Some(format!("http://h/m/{query}"));
        assert_eq!(envelope(10, Some(1), ""), Some((None, None)));
        assert_eq!(envelope(21, Some(1), ""), Some((link("?page=2"), None)));
        assert_eq!(
            envelope(21, Some(2), "page=2"),
            Some((link("?page=3"), link("")))
        );
        assert_eq!(
            envelope(21, None, "page=last&x=1"),
            Some((None, link("?page=2&x=1")))
        );
        assert_eq!(envelope(0, None, ""), Some((None, None)));
        assert_eq!(envelope(0, Some(2), ""), None);
        assert_eq!(envelope(20, Some(3), ""), None);
    }
}
