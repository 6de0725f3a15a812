//! Bytes to a request's head: httparse's tokens under the framing rules of RFC 9112, which it leaves to us. Knows no
//! socket.
use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::limits::Limits;
use super::refusal::Refusal;
use super::target;

/// The most bytes of empty lines before a request line (RFC 9112 2.2 has them skipped).
const EMPTY_LINES_BYTES: usize = 128;

/// What a request's head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Any token, as sent.
    pub method: String,
    /// Origin-form or `*`; the query's bytes past ASCII, which are UTF-8, are percent-encoded.
    pub target: String,
    /// Names and values as sent and in their order, the values as Latin-1. In an absolute-form's request Host is
    /// the target's (RFC 9112 3.2.2).
    pub headers: Vec<(String, String)>,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether it was sent by HTTP/1.0.
    pub is_http_10: bool,
    /// Whether the client wants the connection to go on after the answer (RFC 9112 9.3).
    pub keeps_alive: bool,
    /// Whether the client sends the body only when told to (RFC 9110 10.1.1).
    pub awaits_continue: bool,
}

impl Head {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Where a body ends (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes; 0 also where nothing is said.
    Length(u64),
    /// After the last chunk and its trailers.
    Chunked,
}

/// The head that these bytes begin with, and how many of them it took, its empty line included; none while more is
/// needed. The bytes begin with the head's first one.
///
/// # Errors
/// The refusal that a head deserves which breaks a rule or a limit, as soon as that shows.
pub fn parse_head(bytes: &[u8], limits: &Limits) -> Result<Option<(Head, usize)>, Refusal> {
    let empty_bytes = skip_empty_lines(bytes)?;
    let bytes = bytes.get(empty_bytes..).unwrap_or_default();
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let target = line.splitn(3, |byte| *byte == b' ').nth(1);
    if target.is_some_and(|target| target.len() > limits.target_bytes) {
        return Err(Refusal::LongTarget);
    }
    let Some(head_bytes) = measure_head(bytes)? else {
        return if bytes.len() > limits.head_bytes {
            Err(Refusal::LargeHead)
        } else {
            Ok(None)
        };
    };
    if head_bytes > limits.head_bytes {
        return Err(Refusal::LargeHead);
    }
    let head = bytes.get(..head_bytes).unwrap_or_default();
    let head = read_head(&normalize_request_line(head, line.len())?, limits)?;
    Ok(Some((head, empty_bytes + head_bytes)))
}

/// Whether `bytes`, of which those before `new_from` were parsed before without a result, can have one now. Saves
/// the parsing of a head anew for each of its bytes.
pub(super) fn may_be_judged(bytes: &[u8], new_from: usize, limits: &Limits) -> bool {
    let new = bytes.get(new_from..).unwrap_or_default();
    new.contains(&b'\n') || bytes.len() > limits.target_bytes
}

/// Whether the bytes, whole request or not, are to be answered without a body (RFC 9110 9.3.2).
pub(super) fn begins_with_head(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"HEAD ")
}

/// Whether a byte may stand in a method or a field's name (RFC 9110 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a byte may stand in a field's value (RFC 9110 5.5).
pub(super) fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn skip_empty_lines(bytes: &[u8]) -> Result<usize, Refusal> {
    let mut rest = bytes;
    while let Some(behind) = rest.strip_prefix(b"\r\n") {
        rest = behind;
    }
    let skipped_bytes = bytes.len() - rest.len();
    if skipped_bytes > EMPTY_LINES_BYTES {
        return Err(Refusal::Malformed("There are too many empty lines."));
    }
    Ok(skipped_bytes)
}

/// How many bytes the head has, once its empty line is there. httparse would take a bare line feed for a line's end,
/// which a proxy before us may not (RFC 9112 2.2).
fn measure_head(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut head_bytes = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        head_bytes += line.len();
        match line {
            b"\r\n" => return Ok(Some(head_bytes)),
            [.., b'\r', b'\n'] => {}
            [.., b'\n'] => return Err(Refusal::Malformed("A line does not end in CR LF.")),
            _ => {}
        }
    }
    Ok(None)
}

/// Makes the request line one that httparse reads: it knows no minor versions past 1.1, which are to be taken as 1.1
/// (RFC 9110 2.5), and its targets are ASCII. Bytes past ASCII are no part of a target (RFC 3986 2) and not corrected (RFC
/// 9112 3), except UTF-8 in the query, which is percent-encoded: curl and the replaced service's clients send it.
fn normalize_request_line(head: &[u8], line_bytes: usize) -> Result<Cow<'_, [u8]>, Refusal> {
    let (line, rest) = head.split_at(line_bytes.min(head.len()));
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_ascii() && (line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")) {
        return Ok(Cow::Borrowed(head));
    }
    let (asked, version) = line.split_at(line.len().saturating_sub(b" HTTP/1.1".len()));
    let [b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor] = version else {
        return Err(Refusal::Malformed("The request line is malformed."));
    };
    let minor = match (major, minor) {
        (b'1', b'0') => b'0',
        (b'1', b'1'..=b'9') => b'1',
        (b'0'..=b'9', b'0'..=b'9') => return Err(Refusal::Version),
        _ => return Err(Refusal::Malformed("The request line is malformed.")),
    };
    let method_bytes = asked.iter().position(|byte| *byte == b' ');
    let (method, target) = asked.split_at(method_bytes.unwrap_or_default());
    let query_start = target.iter().position(|byte| *byte == b'?');
    let (path, query) = target.split_at(query_start.unwrap_or(target.len()));
    if !path.is_ascii() || std::str::from_utf8(query).is_err() {
        return Err(Refusal::Malformed("The target is malformed."));
    }
    let mut normalized = Vec::with_capacity(head.len());
    normalized.extend_from_slice(method);
    for byte in target {
        if byte.is_ascii() {
            normalized.push(*byte);
        } else {
            normalized.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    normalized.extend_from_slice(b" HTTP/1.");
    normalized.extend_from_slice(&[minor, b'\r']);
    normalized.extend_from_slice(rest);
    Ok(Cow::Owned(normalized))
}

fn read_head(bytes: &[u8], limits: &Limits) -> Result<Head, Refusal> {
    let mut fields = [const { MaybeUninit::uninit() }; Limits::MOST_FIELDS];
    let fields = fields.get_mut(..limits.head_fields).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, fields) {
        Ok(httparse::Status::Complete(taken)) if taken == bytes.len() => {}
        Ok(_) => return Err(Refusal::Malformed("The head is malformed.")),
        Err(error) => return Err(translate_error(error)),
    }
    let method = parsed.method.unwrap_or_default();
    let target = target::judge_target(method, parsed.path.unwrap_or_default())?;
    let mut rules = Rules {
        is_http_10: parsed.version == Some(0),
        ..Rules::default()
    };
    let mut headers = Vec::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        rules.judge(field.name, field.value)?;
        headers.push((field.name.to_owned(), decode_latin_1(field.value)));
    }
    if !rules.has_host && !rules.is_http_10 {
        return Err(Refusal::Malformed("There is no Host."));
    }
    if let Some(authority) = target.authority {
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("host"));
        headers.push(("Host".to_owned(), authority.to_owned()));
    }
    Ok(Head {
        method: method.to_owned(),
        target: target.path_and_query.into_owned(),
        headers,
        framing: rules.framing()?,
        is_http_10: rules.is_http_10,
        keeps_alive: !rules.closes && (!rules.is_http_10 || rules.keeps_alive),
        awaits_continue: rules.awaits_continue && !rules.is_http_10,
    })
}

fn translate_error(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::LargeHead,
        httparse::Error::HeaderName => Refusal::Malformed("A field's name is malformed."),
        httparse::Error::HeaderValue => Refusal::Malformed("A field's value is malformed."),
        httparse::Error::NewLine => Refusal::Malformed("A line does not end in CR LF."),
        _ => Refusal::Malformed("The request line is malformed."),
    }
}

/// A value as text that keeps each byte (RFC 9110 5.5: bytes past ASCII are opaque).
fn decode_latin_1(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => text.to_owned(),
        _ => bytes.iter().copied().map(char::from).collect(),
    }
}

/// The members of a field's value that is a list, without the empty ones (RFC 9110 5.6.1.2). A comma in a quoted string
/// separates too, so this is for lists whose known members have none.
fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// What the fields that concern the framing and the connection say together.
#[derive(Default)]
struct Rules {
    is_http_10: bool,
    has_host: bool,
    length: Option<u64>,
    is_chunked: bool,
    closes: bool,
    keeps_alive: bool,
    awaits_continue: bool,
}

impl Rules {
    fn judge(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        // The length first: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => self.judge_host(value),
            6 if name.eq_ignore_ascii_case("expect") => self.judge_expectation(value),
            10 if name.eq_ignore_ascii_case("connection") => {
                self.judge_connection(value);
                Ok(())
            }
            14 if name.eq_ignore_ascii_case("content-length") => self.judge_length(value),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => self.judge_coding(value),
            _ => Ok(()),
        }
    }

    /// Exactly one, and one that names a host (RFC 9112 3.2).
    fn judge_host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.has_host, true) {
            return Err(Refusal::Malformed("There is more than one Host."));
        }
        if !target::is_authority(value) {
            return Err(Refusal::Malformed("The Host header names no host."));
        }
        Ok(())
    }

    /// A list, whose empty members mean nothing (RFC 9110 10.1.1, 5.6.1.2). HTTP/1.0 has no expectations.
    fn judge_expectation(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for expectation in list_members(value) {
            if expectation.eq_ignore_ascii_case(b"100-continue") {
                self.awaits_continue = true;
            } else if !self.is_http_10 {
                return Err(Refusal::Expectation);
            }
        }
        Ok(())
    }

    /// A list, of which two words mean something here (RFC 9110 7.6.1).
    fn judge_connection(&mut self, value: &[u8]) {
        for option in list_members(value) {
            self.closes |= option.eq_ignore_ascii_case(b"close");
            self.keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Once, digits alone (RFC 9112 6.3: anything else is an attack or a fault).
    fn judge_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(value).unwrap_or_default();
        match text.parse() {
            Ok(length) if is_number && self.length.is_none() => {
                self.length = Some(length);
                Ok(())
            }
            _ => Err(Refusal::Malformed("The Content-Length is malformed.")),
        }
    }

    /// Once, and chunked alone (RFC 9112 6.1; no client sends another coding, but attacks do). Empty members of the list
    /// are not ignored here, since a proxy that does not ignore them finds another end of the body (RFC 9112 11.2).
    fn judge_coding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let is_first = !std::mem::replace(&mut self.is_chunked, true);
        if is_first && !self.is_http_10 && value.eq_ignore_ascii_case(b"chunked") {
            Ok(())
        } else {
            Err(Refusal::Malformed(
                "The Transfer-Encoding is not one chunked.",
            ))
        }
    }

    fn framing(&self) -> Result<Framing, Refusal> {
        match (self.length, self.is_chunked) {
            (Some(_), true) => Err(Refusal::Malformed(
                "There are both a Content-Length and a Transfer-Encoding.",
            )),
            (length, false) => Ok(Framing::Length(length.unwrap_or_default())),
            (None, true) => Ok(Framing::Chunked),
        }
    }
}
