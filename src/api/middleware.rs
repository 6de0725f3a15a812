//! What happens around every handler: request id, error rendering, security headers, CORS, access log and metrics.
use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rouille::{Request, Response, ResponseBody};
use serde_json::json;

use super::error::ApiError;
use super::options::{Origin, is_unreserved};
use super::{AppState, RequestContext, cors, forwarded, headers, json_response, routes};
use crate::http::{HeaderLookup, HttpError};
use crate::telemetry::logging::RequestLine;
use crate::telemetry::metrics;
use crate::telemetry::timings;

/// The longest X-Request-Id that is accepted from a proxy, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The access log warns of requests that take longer. A request usually takes milliseconds, so a slower one waited for
/// something: a lock, a connection of the pool, a core for its password.
const SLOW_REQUEST: Duration = Duration::from_secs(1);

/// Handles one request: the function that the HTTP server's workers call. No wait on behalf of the request lasts longer than
/// until `deadline`.
pub fn handle(request: &Request, state: &AppState, deadline: Instant) -> Response {
    let started = Instant::now();
    let request_id = request_id(request, state);
    // Drops the record of a handler that panicked on this thread.
    timings::take();
    let context = RequestContext {
        state,
        deadline,
        requester: None,
    };
    let result = routes::respond(request, &context);
    let fault = match &result {
        Err(ApiError::Internal(reason)) => Some(reason.clone()),
        _ => None,
    };
    let mut response = result.unwrap_or_else(ApiError::into_response);
    let record = timings::take();
    response.headers.extend(security_headers());
    if state.server_timing && !record.timings.is_empty() {
        let timings = record.timings.to_string();
        let header = ("Server-Timing".into(), timings.into());
        response.headers.push(header);
    }
    let origins = &state.cors_origins;
    let is_preflight = cors::is_preflight(request, origins);
    let origin = || headers::unique(request, "Origin");
    cors::add_headers(origin, is_preflight, origins, &mut response);
    let duration = started.elapsed();
    let status = response.status_code;
    metrics::count_request(record.route, request.method(), status, duration);
    let line = RequestLine {
        request_id: &request_id,
        user_id: record.user_id,
        method: request.method(),
        path: routes::path_of(request),
        route: record.route.name(),
        status,
        duration,
        body_bytes: body_size(&mut response),
        slow: (duration > SLOW_REQUEST).then(|| record.timings.to_string()),
        fault,
    };
    line.log();
    let header = ("X-Request-Id".into(), request_id.into());
    response.headers.push(header);
    response
}

/// Renders an error of the HTTP server itself as the API renders its own errors. `lookup` finds the headers of the request,
/// by which scripts of the allowed origins may read the response.
pub fn render_http_error(error: HttpError, lookup: &HeaderLookup, origins: &[Origin]) -> Response {
    let mut response = json_response(error.status(), &json!({ "detail": error.detail() }));
    response.headers.extend(security_headers());
    cors::add_headers(|| lookup("Origin"), false, origins, &mut response);
    response
}

/// rouille tells the size only when it gives the body away, so this puts it back.
fn body_size(response: &mut Response) -> usize {
    let body = std::mem::replace(&mut response.data, ResponseBody::empty());
    let (reader, size) = body.into_reader_and_size();
    let size = size.unwrap_or_default();
    response.data = ResponseBody::from_reader_and_size(reader, size);
    size
}

/// The X-Request-Id of a trusted proxy, if it is safe in a log line and a header, else a new id.
fn request_id(request: &Request, state: &AppState) -> String {
    match forwarded::forwarded_value(request, "X-Request-Id", &state.trusted_proxies) {
        Some(id) if is_safe_request_id(id) => id.to_owned(),
        _ => {
            // Steps of an odd size visit all 2^64 numbers before one repeats.
            let number = state
                .next_request_id
                .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            format!("{number:016x}")
        }
    }
}

fn is_safe_request_id(id: &str) -> bool {
    let is_safe = |byte: u8| is_unreserved(byte) || b":/+=@".contains(&byte);
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.bytes().all(is_safe)
}

/// The security headers of every response.
pub fn security_headers() -> [(Cow<'static, str>, Cow<'static, str>); 3] {
    [
        ("X-Content-Type-Options".into(), "nosniff".into()),
        ("Referrer-Policy".into(), "same-origin".into()),
        ("Cross-Origin-Opener-Policy".into(), "same-origin".into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_id_of_a_proxy_must_be_short_and_safe_in_a_log_line() {
        let longest = "a".repeat(MAX_REQUEST_ID_BYTES);
        for good in ["a", "4bf92f35-77b3_4da6:a3ce/929d+0e=@x.~", &longest] {
            assert!(is_safe_request_id(good), "{good}");
        }
        for bad in ["", "a b", "a\n", "é", "a\"", "a,b", &format!("{longest}a")] {
            assert!(!is_safe_request_id(bad), "{bad}");
        }
    }
}
