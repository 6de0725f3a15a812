//! rouille::Response to bytes: head and body in one buffer. Knows no socket.
use std::io::{self, Cursor, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use rouille::{Response, ResponseBody};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::error_headers::Header;
use super::refusal::Refusal;
use super::request::{Head, is_field_byte, is_token_byte};

/// A date as HTTP writes it (RFC 9110 5.6.7).
const DATE: &[BorrowedFormatItem] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// What an answer has to know of its request.
#[derive(Clone, Copy, Debug)]
pub struct Answering {
    /// HEAD: the body is measured and not sent.
    pub is_head: bool,
    /// The client speaks HTTP/1.0.
    pub is_http_10: bool,
    /// The client wants the connection to go on.
    pub keeps_alive: bool,
}

impl Answering {
    /// To this request.
    pub fn new(head: &Head) -> Answering {
        Answering {
            is_head: head.method == "HEAD",
            is_http_10: head.is_http_10,
            keeps_alive: head.keeps_alive,
        }
    }
}

/// The Date header's value, formatted once a second.
#[derive(Default)]
pub struct Clock {
    second: u64,
    text: String,
}

impl Clock {
    fn date(&mut self) -> &str {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let second = now.unwrap_or_default().as_secs();
        if second != self.second || self.text.is_empty() {
            self.second = second;
            let date = i64::try_from(second).unwrap_or_default();
            let date = OffsetDateTime::from_unix_timestamp(date);
            let date = date.unwrap_or(OffsetDateTime::UNIX_EPOCH);
            self.text = date.format(DATE).unwrap_or_default();
        }
        &self.text
    }
}

/// Puts a handler's answer into the buffer, in place of what was there. `closes` is told to the client.
pub fn write_response(
    buffer: &mut Vec<u8>,
    response: Response,
    answering: Answering,
    closes: bool,
    clock: &mut Clock,
) {
    let status = response.status_code;
    if !(200..1000).contains(&status) {
        // An interim answer is no answer (RFC 9110 15.2), and other numbers are no status.
        log::error!("a handler answered with status {status}");
        return write_response(buffer, fault(), answering, closes, clock);
    }
    let Ok((body, size)) = measure_body(response.data) else {
        log::error!("an answer's body could not be read");
        return write_response(buffer, fault(), answering, closes, clock);
    };
    write_start(buffer, status, clock);
    for (name, value) in &response.headers {
        write_field(buffer, name, value);
    }
    write_connection(buffer, answering, closes);
    // Neither has a body, and a length would be that of another answer (RFC 9110 8.6).
    let has_body = status != 204 && status != 304;
    if has_body {
        write_length(buffer, size);
    }
    buffer.extend_from_slice(b"\r\n");
    if !has_body || answering.is_head {
        return;
    }
    let most = u64::try_from(size).unwrap_or(u64::MAX);
    if body.take(most).read_to_end(buffer).ok() != Some(size) {
        log::error!("an answer's body ended before its {size} bytes");
        write_response(buffer, fault(), answering, closes, clock);
    }
}

/// Puts the server's own answer into the buffer, in place of what was there. It tells that the connection closes.
/// `headers` are the application's.
pub fn write_refusal(
    buffer: &mut Vec<u8>,
    refusal: Refusal,
    headers: &[Header],
    is_head: bool,
    clock: &mut Clock,
) {
    write_start(buffer, refusal.status(), clock);
    for (name, value) in REFUSAL_FIELDS {
        write_field(buffer, name, value);
    }
    if refusal.status() == 503 {
        write_field(buffer, "Retry-After", "1");
    }
    for (name, value) in headers {
        write_field(buffer, name, value);
    }
    buffer.extend_from_slice(b"Connection: close\r\n");
    let detail = refusal.detail();
    write_length(buffer, br#"{"detail":""}"#.len() + detail.len());
    buffer.extend_from_slice(b"\r\n");
    if !is_head {
        buffer.extend_from_slice(br#"{"detail":""#);
        buffer.extend_from_slice(detail.as_bytes());
        buffer.extend_from_slice(br#""}"#);
    }
}

/// The answer in place of one that could not be made: 500 in JSON.
pub fn fault() -> Response {
    let fields = REFUSAL_FIELDS.map(|(name, value)| (name.into(), value.into()));
    Response {
        status_code: 500,
        headers: fields.to_vec(),
        data: ResponseBody::from_string(r#"{"detail":"Internal server error."}"#),
        upgrade: None,
    }
}

/// What every answer of the server's own carries.
const REFUSAL_FIELDS: [(&str, &str); 4] = [
    ("Content-Type", "application/json"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
];

/// A body and its size in bytes, which is found by reading it where the handler does not say.
fn measure_body(body: ResponseBody) -> io::Result<(Box<dyn Read + Send>, usize)> {
    let (mut reader, size) = body.into_reader_and_size();
    if let Some(size) = size {
        return Ok((reader, size));
    }
    let mut bytes = Vec::new();
    let size = reader.read_to_end(&mut bytes)?;
    Ok((Box::new(Cursor::new(bytes)), size))
}

/// The status line and the date.
fn write_start(buffer: &mut Vec<u8>, status: u16, clock: &mut Clock) {
    buffer.clear();
    buffer.extend_from_slice(b"HTTP/1.1 ");
    write_number(buffer, status.into());
    buffer.push(b' ');
    buffer.extend_from_slice(name_status(status).as_bytes());
    buffer.extend_from_slice(b"\r\nDate: ");
    buffer.extend_from_slice(clock.date().as_bytes());
    buffer.extend_from_slice(b"\r\n");
}

/// A field as a handler wants it, unless it is the server's to say, or would break the head's lines.
fn write_field(buffer: &mut Vec<u8>, name: &str, value: &str) {
    let is_ours = match name.len() {
        4 => name.eq_ignore_ascii_case("date"),
        7 => name.eq_ignore_ascii_case("upgrade"),
        10 => name.eq_ignore_ascii_case("connection"),
        14 => name.eq_ignore_ascii_case("content-length"),
        17 => name.eq_ignore_ascii_case("transfer-encoding"),
        _ => false,
    };
    if is_ours {
        return;
    }
    if name.is_empty() || !name.bytes().all(is_token_byte) || !value.bytes().all(is_field_byte) {
        log::error!("a handler's header was dropped: {name:?} or its value is malformed");
        return;
    }
    buffer.extend_from_slice(name.as_bytes());
    buffer.extend_from_slice(b": ");
    buffer.extend_from_slice(value.as_bytes());
    buffer.extend_from_slice(b"\r\n");
}

/// Whether the connection goes on, where the version alone does not say it (RFC 9112 9.3).
fn write_connection(buffer: &mut Vec<u8>, answering: Answering, closes: bool) {
    if closes {
        buffer.extend_from_slice(b"Connection: close\r\n");
    } else if answering.is_http_10 {
        buffer.extend_from_slice(b"Connection: keep-alive\r\n");
    }
}

fn write_length(buffer: &mut Vec<u8>, bytes: usize) {
    buffer.extend_from_slice(b"Content-Length: ");
    write_number(buffer, bytes);
    buffer.extend_from_slice(b"\r\n");
}

/// Without the machinery of formatting, which showed in profiles.
fn write_number(buffer: &mut Vec<u8>, number: usize) {
    if number >= 10 {
        write_number(buffer, number / 10);
    }
    buffer.push(b'0' + u8::try_from(number % 10).unwrap_or_default());
}

/// The words beside a status (RFC 9110 15); a client may not rely on them (RFC 9112 4).
fn name_status(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
