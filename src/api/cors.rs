//! CORS: which other sites' scripts may read responses (the Fetch standard). Only the origins in CORS_ORIGINS, none by
//! default. Credentials such as cookies are never allowed, since a script sends the token itself.
use rouille::{Request, Response};

use super::headers;
use super::options::Origin;

/// The response headers that a script may read, beside those that the standard always allows.
const EXPOSED: &str = "Allow, Location, Retry-After, WWW-Authenticate, X-Request-Id";

/// Whether this is a preflight request (Fetch 3.3.2) from an allowed origin.
pub fn is_preflight(request: &Request, origins: &[Origin]) -> bool {
    request.method() == "OPTIONS"
        && request.header("Access-Control-Request-Method").is_some()
        && allowed_origin(headers::unique(request, "Origin"), origins).is_some()
}

/// Adds the headers by which a browser lets a script of an allowed origin read this response, or send the request after this
/// preflight. The allowed methods are those of the response's Allow header, so an unknown path allows none. `sent_origin`
/// reads the request's Origin header.
pub fn add_headers<'a>(
    sent_origin: impl FnOnce() -> Option<&'a str>,
    is_preflight: bool,
    origins: &[Origin],
    response: &mut Response,
) {
    if origins.is_empty() {
        return;
    }
    let headers = &mut response.headers;
    // Also without an Origin header: a cache must not use that response for a request that has one.
    headers.push(("Vary".into(), "Origin".into()));
    let Some(origin) = allowed_origin(sent_origin(), origins) else {
        return;
    };
    let origin = origin.to_owned();
    if headers.iter().any(|(name, _)| name == "Server-Timing") {
        // Without it a browser hides the timing from the site's scripts (W3C Resource Timing 4.5).
        headers.push(("Timing-Allow-Origin".into(), origin.clone().into()));
    }
    headers.push(("Access-Control-Allow-Origin".into(), origin.into()));
    match headers.iter().find(|(name, _)| name == "Allow") {
        Some((_, methods)) if is_preflight => {
            let methods = methods.clone();
            headers.extend([
                ("Access-Control-Allow-Methods".into(), methods),
                (
                    "Access-Control-Allow-Headers".into(),
                    "Authorization, Content-Type".into(),
                ),
                ("Access-Control-Max-Age".into(), "600".into()),
            ]);
        }
        _ => headers.push(("Access-Control-Expose-Headers".into(), EXPOSED.into())),
    }
}

/// `sent`, if it is one of the allowed origins.
fn allowed_origin<'a>(sent: Option<&'a str>, origins: &[Origin]) -> Option<&'a str> {
    sent.filter(|sent| origins.iter().any(|Origin(origin)| origin == *sent))
}
