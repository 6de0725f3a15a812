//! Responses to bytes: those of handlers, and the server's own error responses. Does not depend on sockets.
use std::borrow::Cow;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use ::http::StatusCode;
use rouille::{Response, ResponseBody};

use super::head::{Head, is_token_byte, is_value_byte};

/// Why the server responds in place of a handler. After all of them but [`HttpError::Internal`] the connection is closed,
/// since the following bytes may not be a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// 400: the request breaks a framing rule of RFC 9112 or RFC 9110; with a sentence that names the rule.
    BadRequest(&'static str),
    /// 408: the head or the body was not complete within its timeout (RFC 9110 15.5.9).
    RequestTimeout,
    /// 413 (RFC 9110 15.5.14).
    BodyTooLarge,
    /// 414 (RFC 9110 15.5.15).
    TargetTooLong,
    /// 417: an expectation other than 100-continue (RFC 9110 10.1.1).
    ExpectationFailed,
    /// 431 (RFC 6585 5).
    HeadersTooLarge,
    /// 500: the handler panicked, or its response cannot be sent.
    Internal,
    /// 503: [`Limits::max_connections`](super::Limits::max_connections) are open.
    TooManyConnections,
    /// 503: no worker was free for too long, or no memory for the body.
    Overloaded,
    /// 505 (RFC 9110 15.6.6).
    VersionNotSupported,
}

impl HttpError {
    /// Returns the status code.
    pub fn status(self) -> u16 {
        match self {
            HttpError::BadRequest(_) => 400,
            HttpError::RequestTimeout => 408,
            HttpError::BodyTooLarge => 413,
            HttpError::TargetTooLong => 414,
            HttpError::ExpectationFailed => 417,
            HttpError::HeadersTooLarge => 431,
            HttpError::Internal => 500,
            HttpError::TooManyConnections | HttpError::Overloaded => 503,
            HttpError::VersionNotSupported => 505,
        }
    }

    /// Returns a sentence for people, in ASCII.
    pub fn detail(self) -> &'static str {
        match self {
            HttpError::BadRequest(rule) => rule,
            HttpError::RequestTimeout => "The request took too long to arrive.",
            HttpError::BodyTooLarge => "The body is too large.",
            HttpError::TargetTooLong => "The request target is too long.",
            HttpError::ExpectationFailed => "The only supported expectation is 100-continue.",
            HttpError::HeadersTooLarge => "The request headers are too large.",
            HttpError::Internal => "Internal server error.",
            HttpError::TooManyConnections => "Too many connections, try again later.",
            HttpError::Overloaded => "Service temporarily unavailable, try again later.",
            HttpError::VersionNotSupported => "The supported versions are HTTP/1.0 and HTTP/1.1.",
        }
    }
}

/// Returns the value of a request's header, given its name in any case.
pub type HeaderLookup<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

/// Renders an error response to a request with these headers; to one without headers if they were not received or are
/// malformed. Must neither block nor panic.
pub type RenderError = dyn Fn(HttpError, &HeaderLookup) -> Response + Send + Sync;

/// The application's function for error responses, by default [`render_plain_text`]. Clones share it.
#[derive(Clone, Default)]
pub struct ErrorRenderer(Arc<OnceLock<Box<RenderError>>>);

impl ErrorRenderer {
    /// Sets the function, unless one is set.
    pub fn set(&self, render: Box<RenderError>) {
        self.0.get_or_init(|| render);
    }

    /// Renders an error with its own status, whatever the application's function says, and with Retry-After if it is
    /// temporary (RFC 9110 15.6.4).
    pub fn render(&self, error: HttpError, lookup: &HeaderLookup) -> Response {
        let mut response = match self.0.get() {
            Some(render) => render(error, lookup),
            None => render_plain_text(error),
        };
        response.status_code = error.status();
        if response.status_code == 503 {
            let retry_after = (Cow::from("Retry-After"), Cow::from("1"));
            response.headers.push(retry_after);
        }
        response
    }
}

fn render_plain_text(error: HttpError) -> Response {
    Response::text(error.detail()).with_status_code(error.status())
}

/// What the response depends on of its request.
#[derive(Clone, Copy, Debug)]
pub struct ResponseContext {
    /// The method is HEAD: the body is measured and not sent.
    pub is_head: bool,
    /// The request was sent with HTTP/1.0.
    pub is_http_10: bool,
    /// The client wants to keep the connection open.
    pub keep_alive: bool,
}

impl ResponseContext {
    /// Returns the context of a response to this request.
    pub fn new(head: &Head) -> ResponseContext {
        ResponseContext {
            is_head: head.method == "HEAD",
            is_http_10: head.is_http_10,
            keep_alive: head.keep_alive,
        }
    }
}

/// The value of the Date header, formatted once a second.
#[derive(Default)]
pub struct Clock {
    second: u64,
    text: String,
}

impl Clock {
    fn date(&mut self) -> &str {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(now);
        }
        &self.text
    }
}

/// Why a handler's response cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum InvalidResponse {
    /// An interim response is not a response (RFC 9110 15.2), and other numbers are no status.
    #[error("a handler returned status {0}")]
    Status(u16),
    #[error("a response's body cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("a response's body ended before its {0} bytes")]
    Truncated(usize),
}

/// Replaces the contents of `buffer` by a response. `closes` says whether the connection is closed after it.
///
/// # Errors
/// If the response cannot be sent; then `buffer` has no meaning.
pub fn write_response(
    buffer: &mut Vec<u8>,
    response: Response,
    context: ResponseContext,
    closes: bool,
    clock: &mut Clock,
) -> Result<(), InvalidResponse> {
    let status = response.status_code;
    if !(200..1000).contains(&status) {
        return Err(InvalidResponse::Status(status));
    }
    let (body, size) = measure_body(response.data).map_err(InvalidResponse::Unreadable)?;
    write_status_line_and_date(buffer, status, clock);
    for (name, value) in &response.headers {
        write_header(buffer, name, value);
    }
    write_connection(buffer, context, closes);
    // These have no body, and a length would be that of another response (RFC 9110 8.6).
    let has_body = status != 204 && status != 304;
    if has_body {
        buffer.extend_from_slice(b"Content-Length: ");
        buffer.extend_from_slice(itoa::Buffer::new().format(size).as_bytes());
        buffer.extend_from_slice(b"\r\n");
    }
    buffer.extend_from_slice(b"\r\n");
    if !has_body || context.is_head {
        return Ok(());
    }
    let max_bytes = u64::try_from(size).unwrap_or(u64::MAX);
    match body.take(max_bytes).read_to_end(buffer) {
        Ok(read) if read == size => Ok(()),
        Ok(_) => Err(InvalidResponse::Truncated(size)),
        Err(error) => Err(InvalidResponse::Unreadable(error)),
    }
}

/// Replaces the contents of `buffer` by an error response that closes the connection.
pub fn write_error(
    buffer: &mut Vec<u8>,
    errors: &ErrorRenderer,
    error: HttpError,
    lookup: &HeaderLookup,
    is_head: bool,
    clock: &mut Clock,
) {
    let context = ResponseContext {
        is_head,
        is_http_10: false,
        keep_alive: false,
    };
    let response = errors.render(error, lookup);
    if let Err(invalid) = write_response(buffer, response, context, true, clock) {
        log::error!("cannot render an error response: {invalid}");
        // A body in memory is always complete.
        _ = write_response(buffer, render_plain_text(error), context, true, clock);
    }
}

/// Returns a body and its size in bytes, which is found by reading the body if the handler did not set it.
fn measure_body(body: ResponseBody) -> io::Result<(Box<dyn Read + Send>, usize)> {
    let (mut reader, size) = body.into_reader_and_size();
    if let Some(size) = size {
        return Ok((reader, size));
    }
    let mut bytes = Vec::new();
    let size = reader.read_to_end(&mut bytes)?;
    Ok((Box::new(Cursor::new(bytes)), size))
}

fn write_status_line_and_date(buffer: &mut Vec<u8>, status: u16, clock: &mut Clock) {
    // Optional, and of no meaning to clients (RFC 9112 4).
    let reason = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason());
    buffer.clear();
    buffer.extend_from_slice(b"HTTP/1.1 ");
    buffer.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    buffer.push(b' ');
    buffer.extend_from_slice(reason.unwrap_or_default().as_bytes());
    buffer.extend_from_slice(b"\r\nDate: ");
    buffer.extend_from_slice(clock.date().as_bytes());
    buffer.extend_from_slice(b"\r\n");
}

/// Headers that only the server may set, since they frame the response or concern the connection.
const SERVER_HEADERS: [&str; 5] = [
    "Connection",
    "Content-Length",
    "Date",
    "Transfer-Encoding",
    "Upgrade",
];

/// Writes a handler's header, unless it is the server's to set or would break the lines of the head.
fn write_header(buffer: &mut Vec<u8>, name: &str, value: &str) {
    if SERVER_HEADERS
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other))
    {
        return;
    }
    if name.is_empty() || !name.bytes().all(is_token_byte) || !value.bytes().all(is_value_byte) {
        log::error!("dropped a handler's header: {name:?} or its value is malformed");
        return;
    }
    buffer.extend_from_slice(name.as_bytes());
    buffer.extend_from_slice(b": ");
    buffer.extend_from_slice(value.as_bytes());
    buffer.extend_from_slice(b"\r\n");
}

/// Says whether the connection stays open, unless the version alone says it (RFC 9112 9.3).
fn write_connection(buffer: &mut Vec<u8>, context: ResponseContext, closes: bool) {
    if closes {
        buffer.extend_from_slice(b"Connection: close\r\n");
    } else if context.is_http_10 {
        buffer.extend_from_slice(b"Connection: keep-alive\r\n");
    }
}
