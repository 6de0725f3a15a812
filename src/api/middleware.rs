//! What happens around every handler: request id, error rendering, security headers, CORS, access log and metrics.
use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rouille::{Request, Response, ResponseBody};

use super::error::ApiError;
use super::{AppState, RequestContext, cors, forwarded, routes};
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
    let path = request.raw_url().split('?').next().unwrap_or_default();
    // Drops the trace of a handler that panicked on this thread.
    timings::take();
    let context = RequestContext {
        state,
        deadline,
        user_id: None,
    };
    let mut fault = None;
    let mut response = routes::respond(request, path, &context).unwrap_or_else(|error| {
        if let ApiError::Internal(reason) = &error {
            fault = Some(reason.clone());
        }
        error.into_response()
    });
    let trace = timings::take();
    let body = std::mem::replace(&mut response.data, ResponseBody::empty());
    let (reader, size) = body.into_reader_and_size();
    let body_bytes = size.unwrap_or_default();
    response.data = ResponseBody::from_reader_and_size(reader, body_bytes);
    response.headers.extend(security_headers());
    if state.server_timing && !trace.timings.is_empty() {
        let timings = trace.timings.to_string();
        response
            .headers
            .push(("Server-Timing".into(), timings.into()));
    }
    cors::add_headers(request, &state.cors_origins, &mut response);
    let duration = started.elapsed();
    metrics::count_request(
        trace.route,
        request.method(),
        response.status_code,
        duration,
    );
    let line = RequestLine {
        request_id: &request_id,
        user_id: trace.user_id,
        method: request.method(),
        path,
        route: trace.route.name(),
        status: response.status_code,
        duration,
        body_bytes,
        slow: (duration > SLOW_REQUEST).then(|| trace.timings.to_string()),
        fault,
    };
    line.log();
    response
        .headers
        .push(("X-Request-Id".into(), request_id.into()));
    response
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
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/+=@".contains(&byte);
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
