//! Responses to bytes: those of handlers, and the server's own error responses. Does not depend on sockets.
use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use ::http::StatusCode;
use anyhow::Context;
use rouille::Response;

use super::head::{is_token_byte, is_value_byte};

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
        self.status_and_detail().0
    }

    /// Returns a sentence for people, in ASCII.
    pub fn detail(self) -> &'static str {
        self.status_and_detail().1
    }

    fn status_and_detail(self) -> (u16, &'static str) {
        match self {
            HttpError::BadRequest(rule) => (400, rule),
            HttpError::RequestTimeout => (408, "The request took too long to arrive."),
            HttpError::BodyTooLarge => (413, "The body is too large."),
            HttpError::TargetTooLong => (414, "The request target is too long."),
            HttpError::ExpectationFailed => {
                (417, "The only supported expectation is 100-continue.")
            }
            HttpError::HeadersTooLarge => (431, "The request headers are too large."),
            HttpError::Internal => (500, "Internal server error."),
            HttpError::TooManyConnections => (503, "Too many connections, try again later."),
            HttpError::Overloaded => (503, "Service temporarily unavailable, try again later."),
            HttpError::VersionNotSupported => {
                (505, "The supported versions are HTTP/1.0 and HTTP/1.1.")
            }
        }
    }
}

/// Returns the value of a request's header, given its name in any case.
pub type HeaderLookup<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

/// Renders an error response to a request with these headers. Must neither block nor panic.
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

const UNREADABLE_BODY: &str = "a response's body cannot be read";

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

/// Turns responses into bytes, one at a time.
pub struct ResponseWriter {
    pub errors: ErrorRenderer,
    /// The bytes of the last response.
    pub output: Vec<u8>,
    /// The value of the Date header, formatted once a second, and its second since 1970.
    date: String,
    date_second: u64,
}

impl ResponseWriter {
    pub fn new(errors: ErrorRenderer) -> ResponseWriter {
        ResponseWriter {
            errors,
            output: Vec::new(),
            date: String::new(),
            date_second: 0,
        }
    }

    /// Writes a response. `closes` says whether the connection is closed after it.
    ///
    /// # Errors
    /// If the response cannot be sent; then `output` has no meaning.
    pub fn write(
        &mut self,
        response: Response,
        context: ResponseContext,
        closes: bool,
    ) -> anyhow::Result<()> {
        // An interim response is not a response (RFC 9110 15.2), and other numbers are no status.
        let status = StatusCode::from_u16(response.status_code).ok();
        let status = status.filter(|status| !status.is_informational());
        let status = status
            .with_context(|| format!("a handler returned status {}", response.status_code))?;
        let (mut body, size) = response.data.into_reader_and_size();
        let size = match size {
            Some(size) => size,
            None => {
                let mut bytes = Vec::new();
                body.read_to_end(&mut bytes).context(UNREADABLE_BODY)?;
                let size = bytes.len();
                body = Box::new(Cursor::new(bytes));
                size
            }
        };
        self.update_date();
        let output = &mut self.output;
        output.clear();
        // The reason is optional, and of no meaning to clients (RFC 9112 4).
        let reason = status.canonical_reason().unwrap_or_default();
        append(output, &["HTTP/1.1 ", status.as_str(), " ", reason]);
        append(output, &["\r\nDate: ", &self.date, "\r\n"]);
        for (name, value) in &response.headers {
            write_header(output, name, value);
        }
        // What the version alone does not say (RFC 9112 9.3).
        if closes {
            append(output, &["Connection: close\r\n"]);
        } else if context.is_http_10 {
            append(output, &["Connection: keep-alive\r\n"]);
        }
        // These have no body, and a length would be that of another response (RFC 9110 8.6).
        let has_body = status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
        if has_body {
            let mut digits = itoa::Buffer::new();
            append(output, &["Content-Length: ", digits.format(size), "\r\n"]);
        }
        append(output, &["\r\n"]);
        if has_body && !context.is_head {
            let max_bytes = u64::try_from(size).unwrap_or(u64::MAX);
            let read = body
                .take(max_bytes)
                .read_to_end(output)
                .context(UNREADABLE_BODY)?;
            anyhow::ensure!(
                read == size,
                "a response's body ended before its {size} bytes"
            );
        }
        Ok(())
    }

    /// Writes an error response that closes the connection.
    pub fn write_error(&mut self, error: HttpError, lookup: &HeaderLookup, is_head: bool) {
        let context = ResponseContext {
            is_head,
            is_http_10: false,
            keep_alive: false,
        };
        let response = self.errors.render(error, lookup);
        if let Err(invalid) = self.write(response, context, true) {
            log::error!("cannot render an error response: {invalid:#}");
            // A body in memory is always complete.
            _ = self.write(render_plain_text(error), context, true);
        }
    }

    fn update_date(&mut self) {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if second != self.date_second || self.date.is_empty() {
            self.date_second = second;
            self.date = httpdate::fmt_http_date(now);
        }
    }
}

fn append(output: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        output.extend_from_slice(part.as_bytes());
    }
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
fn write_header(output: &mut Vec<u8>, name: &str, value: &str) {
    let mut server_headers = SERVER_HEADERS.iter();
    if server_headers.any(|other| name.eq_ignore_ascii_case(other)) {
        return;
    }
    if name.is_empty() || !name.bytes().all(is_token_byte) || !value.bytes().all(is_value_byte) {
        log::error!("dropped a handler's header: {name:?} or its value is malformed");
        return;
    }
    append(output, &[name, ": ", value, "\r\n"]);
}
