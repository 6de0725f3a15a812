//! CORS: which other sites' scripts may read responses (the Fetch standard). Only the origins in CORS_ORIGINS, none by
//! default. Credentials such as cookies are never allowed, since a script sends the token itself.
use std::borrow::Cow;

use rouille::{Request, Response};

use super::headers;
use super::options::Origin;
use crate::http::HeaderLookup;

/// A response header, in the form that rouille keeps it.
type Header = (Cow<'static, str>, Cow<'static, str>);

/// The response headers that a script may read, beside those that the standard always allows.
const EXPOSED: &str = "Allow, Location, Retry-After, WWW-Authenticate, X-Request-Id";

/// Whether this is a preflight request (Fetch 3.3.2) from an allowed origin.
pub fn is_preflight(request: &Request, origins: &[Origin]) -> bool {
    request.method() == "OPTIONS"
        && request.header("Access-Control-Request-Method").is_some()
        && allowed_origin(headers::unique(request, "Origin"), origins).is_some()
}

/// Adds the headers by which a browser lets a script of an allowed origin read this response, or send the request after this
/// preflight. The allowed methods are those of the response's Allow header, so an unknown path allows none.
pub fn add_headers(request: &Request, origins: &[Origin], response: &mut Response) {
    if origins.is_empty() {
        return;
    }
    // Also without an Origin header: a cache must not use that response for a request that has one.
    response.headers.push(("Vary".into(), "Origin".into()));
    let Some(origin) = allowed_origin(headers::unique(request, "Origin"), origins) else {
        return;
    };
    let origin = origin.to_owned();
    let has_timing = response
        .headers
        .iter()
        .any(|(name, _)| name == "Server-Timing");
    if has_timing {
        // Without it a browser hides the timing from the site's scripts (W3C Resource Timing 4.5).
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

/// The CORS headers of an error response of the HTTP server itself. `lookup` finds the headers of the request.
pub fn error_headers_of(lookup: &HeaderLookup, origins: &[Origin]) -> Vec<Header> {
    if origins.is_empty() {
        return Vec::new();
    }
    let mut headers = vec![("Vary".into(), "Origin".into())];
    if let Some(origin) = allowed_origin(lookup("Origin"), origins) {
        let origin = origin.to_owned();
        headers.push(("Access-Control-Allow-Origin".into(), origin.into()));
        headers.push(("Access-Control-Expose-Headers".into(), EXPOSED.into()));
    }
    headers
}

/// `sent`, if it is one of the allowed origins.
fn allowed_origin<'a>(sent: Option<&'a str>, origins: &[Origin]) -> Option<&'a str> {
    sent.filter(|sent| origins.iter().any(|origin| origin.as_str() == *sent))
}
