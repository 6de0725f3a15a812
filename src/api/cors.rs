//! Which other sites' scripts may read answers (the Fetch standard's CORS protocol): named origins alone, off by
//! default. Credentials of the browser's own, such as cookies, are never allowed: a token is sent by the script.
use std::borrow::Cow;

use rouille::{Request, Response};

use super::forwarded::is_host;
use super::headers::find_single;
use crate::http::HeaderLookup;

/// A response's header, as rouille has it.
type Header = (Cow<'static, str>, Cow<'static, str>);

/// What a script may read beside the headers that the standard allows.
const EXPOSED: &str = "Allow, Location, Retry-After, WWW-Authenticate, X-Request-Id";

/// A scheme, a host and a port, as a browser sends them in Origin: in lower case, without the scheme's own port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl std::str::FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Origin, String> {
        let text = text.trim().to_ascii_lowercase();
        let (scheme, usual_port) = match text.starts_with("https:") {
            true => ("https://", ":443"),
            false => ("http://", ":80"),
        };
        match text.strip_prefix(scheme) {
            Some(host) if is_host(host) => {
                let host = host.strip_suffix(usual_port).unwrap_or(host);
                Ok(Origin(format!("{scheme}{host}")))
            }
            _ => Err("it is a list of origins such as https://app.example.com".to_owned()),
        }
    }
}

/// Whether this is a preflight by a script of a named origin: the question, before a request that is not simple, whether
/// it may be sent.
pub fn is_preflight(request: &Request, origins: &[Origin]) -> bool {
    request.method() == "OPTIONS"
        && request.header("Access-Control-Request-Method").is_some()
        && find_origin(find_single(request, "Origin"), origins).is_some()
}

/// Adds what tells a browser that a script of a named origin may read this answer, or send the request of this preflight.
/// What is allowed is the path's own Allow, so an unknown path allows none.
pub fn add_headers(request: &Request, origins: &[Origin], response: &mut Response) {
    if origins.is_empty() {
        return;
    }
    // Also where there is no Origin: a cache must not give that answer to one who has it.
    response.headers.push(("Vary".into(), "Origin".into()));
    let Some(origin) = find_origin(find_single(request, "Origin"), origins) else {
        return;
    };
    let origin = origin.to_owned();
    let is_timed = response
        .headers
        .iter()
        .any(|(name, _)| name == "Server-Timing");
    if is_timed {
        // Without it a browser keeps the timing from the site's scripts (W3C Resource Timing 4.5).
        let origin = origin.clone().into();
        response
            .headers
            .push(("Timing-Allow-Origin".into(), origin));
    }
    response
        .headers
        .push(("Access-Control-Allow-Origin".into(), origin.into()));
    let is_preflight = is_preflight(request, origins);
    let allow = response
        .headers
        .iter()
        .find(|(name, _)| name == "Allow")
        .map(|(_, allow)| allow.clone());
    match allow {
        Some(allow) if is_preflight => response.headers.extend([
            ("Access-Control-Allow-Methods".into(), allow),
            (
                "Access-Control-Allow-Headers".into(),
                "Authorization, Content-Type".into(),
            ),
            ("Access-Control-Max-Age".into(), "600".into()),
        ]),
        _ => response
            .headers
            .push(("Access-Control-Expose-Headers".into(), EXPOSED.into())),
    }
}

/// The headers of the server's own error response to a request with these headers: its site's scripts may read it.
pub fn error_headers_of(lookup: &HeaderLookup, origins: &[Origin]) -> Vec<Header> {
    if origins.is_empty() {
        return Vec::new();
    }
    let mut headers = vec![("Vary".into(), "Origin".into())];
    if let Some(origin) = find_origin(lookup("Origin"), origins) {
        let origin = origin.to_owned();
        headers.push(("Access-Control-Allow-Origin".into(), origin.into()));
        headers.push(("Access-Control-Expose-Headers".into(), EXPOSED.into()));
    }
    headers
}

/// The request's origin if it is one of those named.
fn find_origin<'a>(sent: Option<&'a str>, origins: &[Origin]) -> Option<&'a str> {
    sent.filter(|sent| origins.iter().any(|Origin(named)| named == sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_kept_as_browsers_send_it_and_has_no_path() {
        for (good, sent) in [
            ("https://app.example.com", "https://app.example.com"),
            (" HTTP://Localhost:3000", "http://localhost:3000"),
            ("HTTPS://[::1]:8443", "https://[::1]:8443"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://app.example.com:80", "http://app.example.com"),
            ("http://app.example.com:443", "http://app.example.com:443"),
        ] {
            assert_eq!(good.parse::<Origin>(), Ok(Origin(sent.into())), "{good}");
        }
        for bad in [
            "*",
            "null",
            "app.example.com",
            "https://",
            "https://a/",
            "https://a b",
            "ftp://a",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
