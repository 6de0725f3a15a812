//! The pagination envelope by hand: count, absolute links to the next and the previous page, results.
use std::net::Ipv6Addr;

use ipnet::IpNet;
use rouille::Request;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Error;
use super::query::Query;
use crate::store::lists::{Page, PageRequest};
use crate::store::movies::Movie;

/// One page of a list, as Django REST framework's PageNumberPagination answers it.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
pub struct Envelope {
    count: i64,
    #[schema(required)]
    next: Option<String>,
    #[schema(required)]
    previous: Option<String>,
    results: Vec<Movie>,
}

impl Envelope {
    /// The envelope of this page. `address` is the list's own, without a query.
    ///
    /// # Errors
    /// 404 for a page past the end; page 1 is always there.
    pub fn new(
        page: Page,
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

/// Scheme and host under which the client reached the service, such as `http://example.com:8000`: the Host header,
/// or what a proxy inside `trusted` forwards. Of a list of forwarded values the last counts, the one that the
/// trusted proxy itself added.
///
/// # Errors
/// 400 if the host is no host: it would be echoed in links.
pub fn find_origin(request: &Request, trusted: &[IpNet]) -> Result<String, Error> {
    let is_trusted = comes_from_trusted(request, trusted);
    let forwarded = |name| {
        let value = request.header(name).filter(|_| is_trusted)?;
        value.rsplit(',').next().map(str::trim)
    };
    let scheme = match forwarded("X-Forwarded-Proto") {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        _ => "http",
    };
    let host = forwarded("X-Forwarded-Host").or_else(|| request.header("Host"));
    match host {
        Some(host) if is_host(host) => Ok(format!("{scheme}://{host}")),
        _ => Err(Error::InvalidHost),
    }
}

/// Whether the peer is a proxy whose own headers are believed.
pub fn comes_from_trusted(request: &Request, trusted: &[IpNet]) -> bool {
    let peer = request.remote_addr().ip().to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

/// Whether it is a name or an address, with or without a port (RFC 3986 3.2.2, of which percent-encoded names and
/// marks other than `-._~` are left out).
pub fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let has_good_port = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    let inner = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_name = |name: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        !name.is_empty() && name.bytes().all(is_allowed)
    };
    has_good_port && inner.map_or_else(|| is_name(name), |inner| inner.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(peer: [u8; 4], headers: &[(&str, &str)]) -> Request {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers = headers.iter().map(owned).collect();
        Request::fake_http_from((peer, 1).into(), "GET", "/", headers, Vec::new())
    }

    fn envelope(
        total: i64,
        number: Option<i64>,
        query: &str,
    ) -> Option<(Option<String>, Option<String>)> {
        let page = Page {
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

    #[test]
    fn hosts_are_names_and_addresses() {
        for host in [
            "a",
            "a-b.c-d:8000",
            "192.0.2.7:1",
            "[::1]",
            "[::1]:8000",
            "a_b",
        ] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "",
            "a b",
            "a/b",
            "u@h",
            "h:port",
            "h:",
            "a,b",
            "a\\b",
            "ex%61mple",
            "a\"b",
            "[::1",
            "::1",
            "a:70000",
            "[x]",
            "a:1:2",
            "é",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn forwarded_values_are_believed_from_trusted_peers_alone() {
        let headers = [
            ("Host", "inner"),
            ("X-Forwarded-Host", "evil, outer"),
            ("X-Forwarded-Proto", "https"),
        ];
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let origin = |peer| find_origin(&request(peer, &headers), &trusted).unwrap();
        assert_eq!(origin([10, 1, 2, 3]), "https://outer");
        assert_eq!(origin([192, 0, 2, 1]), "http://inner");
        assert!(
            find_origin(
                &request([10, 0, 0, 1], &[("X-Forwarded-Host", "a b")]),
                &trusted
            )
            .is_err()
        );
    }
}
