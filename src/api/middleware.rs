//! What every request meets around its handler: its id, the headers of every answer, its line in the log, its count.
use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rouille::{Request, Response, ResponseBody};

use super::error::Error;
use super::{App, Context, cors, forwarded, route};
use crate::telemetry::logging::RequestLine;
use crate::telemetry::metrics;
use crate::telemetry::timings;

/// The longest request id that is taken over from a proxy, in bytes.
const LONGEST_ID: usize = 128;

/// A request that takes longer is warned of in the log. Undisturbed, one takes milliseconds, so it met something worth
/// knowing: a lock, a full pool, a queue of passwords.
const SLOW: Duration = Duration::from_secs(1);

/// Answers one request by the deadline, logs it and counts it.
pub fn handle(request: &Request, app: &App, deadline: Instant) -> Response {
    let started = Instant::now();
    let request_id = identify(request, app);
    let path = request.raw_url().split('?').next().unwrap_or_default();
    // What a handler that panicked on this thread left behind.
    timings::take();
    let mut fault = None;
    let mut response = route(request, path, &Context { app, deadline }).unwrap_or_else(|error| {
        if let Error::Fault(reason) = &error {
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
    if app.server_timing && !trace.timings.is_empty() {
        let spent = trace.timings.to_string();
        response
            .headers
            .push(("Server-Timing".into(), spent.into()));
    }
    cors::add_headers(request, &app.cors_origins, &mut response);
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
        slow: (duration > SLOW).then(|| trace.timings.to_string()),
        fault,
    };
    line.log();
    response
        .headers
        .push(("X-Request-Id".into(), request_id.into()));
    response
}

/// The id that a trusted proxy gave the request, if it is fit for a log line and a header; else one of our own.
fn identify(request: &Request, app: &App) -> String {
    match forwarded::find_forwarded(request, "X-Request-Id", &app.trusted_proxies) {
        Some(id) if is_well_formed(id) => id.to_owned(),
        _ => {
            // An odd step visits every number once before any comes again.
            let number = app
                .request_ids
                .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            format!("{number:016x}")
        }
    }
}

fn is_well_formed(id: &str) -> bool {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/+=@".contains(&byte);
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(is_safe)
}

/// On every answer.
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
    fn an_id_is_short_and_breaks_no_line() {
        let longest = "a".repeat(LONGEST_ID);
        for good in ["a", "4bf92f35-77b3_4da6:a3ce/929d+0e=@x.~", &longest] {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in ["", "a b", "a\n", "é", "a\"", "a,b", &format!("{longest}a")] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }
}
