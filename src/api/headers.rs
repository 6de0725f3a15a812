//! Request headers that may be sent more than once.
use std::borrow::Cow;

use rouille::Request;

/// The values of all headers of this name, in the order in which they were sent.
pub fn all<'a>(request: &'a Request, name: &'a str) -> impl Iterator<Item = &'a str> {
    request
        .headers()
        .filter(move |(header, _)| header.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// The value of a header. Several headers of one name are joined with commas without spaces, as WSGI servers pass them to
/// Django.
pub fn joined<'a>(request: &'a Request, name: &'a str) -> Option<Cow<'a, str>> {
    let mut values = all(request, name);
    let mut joined = Cow::Borrowed(values.next()?);
    for value in values {
        joined += ",";
        joined += value;
    }
    Some(joined)
}

/// The value of a header that must be unique; `None` if it is missing or repeated.
pub fn unique<'a>(request: &'a Request, name: &'a str) -> Option<&'a str> {
    let mut values = all(request, name);
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_headers_are_joined_and_are_not_unique() {
        for (values, expected_joined, expected_unique) in [
            (&[][..], None, None),
            (&["a"], Some("a"), Some("a")),
            (&["a", "b"], Some("a,b"), None),
            (&["", "b", ""], Some(",b,"), None),
        ] {
            let names = ["Origin", "origin", "ORIGIN"];
            let headers = names.iter().zip(values);
            let headers = headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let request = Request::fake_http("GET", "/", headers.collect(), Vec::new());
            assert_eq!(joined(&request, "Origin").as_deref(), expected_joined);
            assert_eq!(unique(&request, "Origin"), expected_unique);
        }
    }
}
