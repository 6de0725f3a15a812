//! Bytes to the head of a request: httparse splits it, and the rules of RFC 9112 and RFC 9110 that httparse leaves to its
//! callers are checked here. Does not depend on sockets.
use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

use percent_encoding::{AsciiSet, percent_encode};

use super::limits::Limits;
use super::response::HttpError;

/// Bytes of empty lines that are skipped before a request line (RFC 9112 2.2).
const MAX_EMPTY_LINE_BYTES: usize = 128;

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Any token, as sent.
    pub method: String,
    /// In origin-form, or `*`. Bytes of the query outside ASCII, which are UTF-8, are percent-encoded.
    pub target: String,
    /// Names and values as sent and in their order, the values decoded as Latin-1. For a target in absolute-form, Host is
    /// the target's host (RFC 9112 3.2.2).
    pub headers: Vec<(String, String)>,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the request was sent with HTTP/1.0.
    pub is_http_10: bool,
    /// Whether the client wants to keep the connection open after the response (RFC 9112 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for 100 Continue before it sends the body (RFC 9110 10.1.1).
    pub awaits_continue: bool,
}

impl Head {
    /// Returns the value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Where a body ends (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this number of bytes; 0 also without any header about the body.
    Length(u64),
    /// After the last chunk and its trailers.
    Chunked,
}

/// Parses the head at the beginning of `bytes`. Returns it with its size in bytes, including its empty line, or `None` if
/// more bytes are needed.
///
/// # Errors
/// If the head breaks a rule or a limit, as soon as the bytes show it.
pub fn parse_head(bytes: &[u8], limits: &Limits) -> Result<Option<(Head, usize)>, HttpError> {
    let mut rest = bytes;
    while let Some(behind) = rest.strip_prefix(b"\r\n") {
        rest = behind;
    }
    let empty_bytes = bytes.len() - rest.len();
    if empty_bytes > MAX_EMPTY_LINE_BYTES {
        return Err(HttpError::BadRequest("There are too many empty lines."));
    }
    let bytes = rest;
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let line = lines.next().unwrap_or_default();
    let target = line.splitn(3, |byte| *byte == b' ').nth(1);
    if target.is_some_and(|target| target.len() > limits.max_target_bytes) {
        return Err(HttpError::TargetTooLong);
    }
    let measured = measure_head(bytes)?;
    if measured.unwrap_or(bytes.len()) > limits.max_head_bytes {
        return Err(HttpError::HeadersTooLarge);
    }
    let Some(head_bytes) = measured else {
        return Ok(None);
    };
    let head = bytes.get(..head_bytes).unwrap_or_default();
    let head = split_head(&normalize_request_line(head, line.len())?, limits)?;
    Ok(Some((head, empty_bytes + head_bytes)))
}

/// Whether [`parse_head`] can return something else than `None` for `bytes`, for whose first `parsed_bytes` it returned
/// that. Without this, a head that arrives byte by byte would be parsed once for each byte.
pub(super) fn may_be_complete(bytes: &[u8], parsed_bytes: usize, limits: &Limits) -> bool {
    let new = bytes.get(parsed_bytes..).unwrap_or_default();
    new.contains(&b'\n') || bytes.len() > limits.max_target_bytes
}

/// Whether the bytes, which may be incomplete or malformed, begin a HEAD request, whose response has no body (RFC 9110
/// 9.3.2).
pub(super) fn begins_with_head_method(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"HEAD ")
}

/// Whether a byte is allowed in a method or a header's name (RFC 9110 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a byte is allowed in a header's value (RFC 9110 5.5).
pub(super) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Returns the size of the head in bytes, or `None` before its empty line has arrived. Rejects bare line feeds, which
/// httparse accepts as the end of a line and a proxy in front of this server may not (RFC 9112 2.2).
fn measure_head(bytes: &[u8]) -> Result<Option<usize>, HttpError> {
    let mut head_bytes = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        head_bytes += line.len();
        match line {
            b"\r\n" => return Ok(Some(head_bytes)),
            [.., b'\r', b'\n'] => {}
            [.., b'\n'] => return Err(HttpError::BadRequest("A line does not end in CR LF.")),
            _ => {}
        }
    }
    Ok(None)
}

/// Rewrites a request line that httparse does not parse: one with a minor version above 1.1, which means 1.1 (RFC 9110
/// 2.5), or with a query that contains UTF-8, which is percent-encoded (curl and the clients of the Django service send
/// it). Other bytes outside ASCII are not allowed in a target (RFC 3986 2) and not corrected (RFC 9112 3).
fn normalize_request_line(head: &[u8], line_bytes: usize) -> Result<Cow<'_, [u8]>, HttpError> {
    let (line, rest) = head.split_at(line_bytes.min(head.len()));
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_ascii() && (line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")) {
        return Ok(Cow::Borrowed(head));
    }
    let (method_and_target, version) = line.split_at(line.len().saturating_sub(b" HTTP/1.1".len()));
    let [b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor] = version else {
        return Err(HttpError::BadRequest("The request line is malformed."));
    };
    let version = match (major, minor) {
        (b'1', b'0') => b" HTTP/1.0\r",
        (b'1', b'1'..=b'9') => b" HTTP/1.1\r",
        (b'0'..=b'9', b'0'..=b'9') => return Err(HttpError::VersionNotSupported),
        _ => return Err(HttpError::BadRequest("The request line is malformed.")),
    };
    let method_bytes = method_and_target.iter().position(|byte| *byte == b' ');
    let (method, target) = method_and_target.split_at(method_bytes.unwrap_or_default());
    let query_start = target.iter().position(|byte| *byte == b'?');
    let (path, query) = target.split_at(query_start.unwrap_or(target.len()));
    if !path.is_ascii() || std::str::from_utf8(query).is_err() {
        return Err(HttpError::BadRequest("The request target is malformed."));
    }
    // The empty set: only bytes outside ASCII are encoded.
    let target = percent_encode(target, &AsciiSet::EMPTY).to_string();
    Ok([method, target.as_bytes(), version, rest].concat().into())
}

fn split_head(bytes: &[u8], limits: &Limits) -> Result<Head, HttpError> {
    let mut slots = [const { MaybeUninit::uninit() }; Limits::MAX_HEADERS];
    let slots = slots.get_mut(..limits.max_headers).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, slots) {
        Ok(httparse::Status::Complete(taken)) if taken == bytes.len() => {}
        Ok(_) => return Err(HttpError::BadRequest("The request headers are malformed.")),
        Err(error) => return Err(translate_error(error)),
    }
    let method = parsed.method.unwrap_or_default();
    let (target, authority) = parse_target(method, parsed.path.unwrap_or_default())?;
    let mut framing = FramingHeaders {
        is_http_10: parsed.version == Some(0),
        ..FramingHeaders::default()
    };
    let mut headers = Vec::with_capacity(parsed.headers.len());
    for header in parsed.headers.iter() {
        framing.apply(header.name, header.value)?;
        headers.push((header.name.to_owned(), decode_latin_1(header.value)));
    }
    if !framing.has_host && !framing.is_http_10 {
        return Err(HttpError::BadRequest("The Host header is missing."));
    }
    if let Some(authority) = authority {
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("host"));
        headers.push(("Host".to_owned(), authority.to_owned()));
    }
    Ok(Head {
        method: method.to_owned(),
        target: target.into_owned(),
        headers,
        framing: framing.framing()?,
        is_http_10: framing.is_http_10,
        keep_alive: !framing.closes && (!framing.is_http_10 || framing.keep_alive),
        awaits_continue: framing.awaits_continue && !framing.is_http_10,
    })
}

fn translate_error(error: httparse::Error) -> HttpError {
    match error {
        httparse::Error::TooManyHeaders => HttpError::HeadersTooLarge,
        httparse::Error::HeaderName => HttpError::BadRequest("A header name is malformed."),
        httparse::Error::HeaderValue => HttpError::BadRequest("A header value is malformed."),
        httparse::Error::NewLine => HttpError::BadRequest("A line does not end in CR LF."),
        _ => HttpError::BadRequest("The request line is malformed."),
    }
}

/// Decodes a value so that each byte becomes one character (RFC 9110 5.5: bytes outside ASCII are opaque).
fn decode_latin_1(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => text.to_owned(),
        _ => bytes.iter().copied().map(char::from).collect(),
    }
}

/// Returns the members of a header that is a list, without the empty ones (RFC 9110 5.6.1.2). Splits at commas in quoted
/// strings too, so it is for headers whose known members contain no quotes.
fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// What the headers of one request that concern framing and connection say together.
#[derive(Default)]
struct FramingHeaders {
    is_http_10: bool,
    has_host: bool,
    length: Option<u64>,
    is_chunked: bool,
    closes: bool,
    keep_alive: bool,
    awaits_continue: bool,
}

impl FramingHeaders {
    fn apply(&mut self, name: &str, value: &[u8]) -> Result<(), HttpError> {
        let is = |other| name.eq_ignore_ascii_case(other);
        if is("host") {
            // Exactly one is allowed, with a valid host (RFC 9112 3.2).
            if std::mem::replace(&mut self.has_host, true) {
                return Err(HttpError::BadRequest("There is more than one Host header."));
            }
            if !std::str::from_utf8(value).is_ok_and(is_authority) {
                return Err(HttpError::BadRequest("The Host header names no host."));
            }
        } else if is("expect") {
            // A list of expectations (RFC 9110 10.1.1), which HTTP/1.0 does not have.
            for expectation in list_members(value) {
                if expectation.eq_ignore_ascii_case(b"100-continue") {
                    self.awaits_continue = true;
                } else if !self.is_http_10 {
                    return Err(HttpError::ExpectationFailed);
                }
            }
        } else if is("connection") {
            // A list of options, two of which are known here (RFC 9110 7.6.1).
            for option in list_members(value) {
                self.closes |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is("content-length") {
            // Allowed once, and only digits: anything else is an attack or a mistake (RFC 9112 6.3).
            let malformed = HttpError::BadRequest("The Content-Length header is malformed.");
            let is_number = value.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(value).unwrap_or_default().parse();
            if !is_number || self.length.is_some() {
                return Err(malformed);
            }
            self.length = Some(length.map_err(|_| malformed)?);
        } else if is("transfer-encoding") {
            // Allowed once, and only `chunked`: no client sends another coding, but attacks do (RFC 9112 6.1). Empty
            // members of the list are errors here, since a proxy that handles them differently would find another end
            // of the body (RFC 9112 11.2).
            let is_first = !std::mem::replace(&mut self.is_chunked, true);
            if !is_first || self.is_http_10 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HttpError::BadRequest(
                    "The only supported Transfer-Encoding is chunked, once.",
                ));
            }
        }
        Ok(())
    }

    fn framing(&self) -> Result<Framing, HttpError> {
        match (self.length, self.is_chunked) {
            (Some(_), true) => Err(HttpError::BadRequest(
                "Content-Length and Transfer-Encoding exclude each other.",
            )),
            (length, false) => Ok(Framing::Length(length.unwrap_or_default())),
            (None, true) => Ok(Framing::Chunked),
        }
    }
}

/// Parses a target of any form (RFC 9112 3.2) but that of CONNECT, which is for proxies. Fragments are not allowed. Returns
/// it in origin-form or as `*`, and the host and port of a target in absolute-form.
fn parse_target<'a>(
    method: &str,
    target: &'a str,
) -> Result<(Cow<'a, str>, Option<&'a str>), HttpError> {
    let malformed = HttpError::BadRequest("The request target is malformed.");
    if method == "CONNECT" || target.contains('#') {
        return Err(malformed);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((target.into(), None));
    }
    let (scheme, rest) = target.split_once("://").ok_or(malformed)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(malformed);
    }
    let (authority, path_and_query) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !is_authority(authority) {
        return Err(malformed);
    }
    let path_and_query = match path_and_query {
        // OPTIONS for the whole server (RFC 9112 3.2.4).
        "" if method == "OPTIONS" => "*".into(),
        _ if path_and_query.starts_with('/') => path_and_query.into(),
        _ => format!("/{path_and_query}").into(),
    };
    Ok((path_and_query, Some(authority)))
}

/// Whether this is a host with or without a port: no user information, not empty (RFC 9110 4.2.1, 4.2.4).
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let literal = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_host = match literal {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_registered_name(host),
    };
    is_host && (port.is_empty() || is_number)
}

/// Whether this is a registered name or an IPv4 address (RFC 3986 3.2.2).
fn is_registered_name(host: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
    let is_encoded = |part: &str| {
        let digits = part.as_bytes().first_chunk::<2>();
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    !host.is_empty() && host.bytes().all(is_allowed) && host.split('%').skip(1).all(is_encoded)
}
