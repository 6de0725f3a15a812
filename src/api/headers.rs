//! Headers that are sent more than once.
use std::borrow::Cow;

use rouille::Request;

/// The values of all lines of this header, in their order.
pub fn find_all<'a>(request: &'a Request, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = request.headers();
    lines
        .filter(move |(line, _)| line.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// The header's value; of several lines, their values with commas between them and no spaces, as WSGI servers hand them to
/// Django.
pub fn find_joined<'a>(request: &'a Request, name: &'a str) -> Option<Cow<'a, str>> {
    let mut values = find_all(request, name);
    let mut joined = Cow::Borrowed(values.next()?);
    for value in values {
        let joined = joined.to_mut();
        joined.push(',');
        joined.push_str(value);
    }
    Some(joined)
}

/// The value of a header that stands for one thing; none if it is sent twice, since then it stands for nothing.
pub fn find_single<'a>(request: &'a Request, name: &'a str) -> Option<&'a str> {
    let mut values = find_all(request, name);
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_name_are_joined_and_are_no_single_value() {
        for (lines, joined, single) in [
            (&[][..], None, None),
            (&["a"], Some("a"), Some("a")),
            (&["a", "b"], Some("a,b"), None),
            (&["", "b", ""], Some(",b,"), None),
        ] {
            let names = ["Origin", "origin", "ORIGIN"];
            let headers = names.iter().zip(lines);
            let headers = headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let request = Request::fake_http("GET", "/", headers.collect(), Vec::new());
            assert_eq!(find_joined(&request, "Origin").as_deref(), joined);
            assert_eq!(find_single(&request, "Origin"), single);
        }
    }
}
