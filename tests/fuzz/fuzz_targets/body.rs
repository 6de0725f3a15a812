//! Decodes any bytes as a body of any framing. The result does not depend on the pieces in which the bytes arrive, the
//! decoder holds no more than arrived or is allowed, and accepts the chunks of the grammar of RFC 9112 7.1, which is
//! implemented here a second time, for complete bodies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use movies_api::http::HttpError;
use movies_api::http::body::BodyDecoder;
use movies_api::http::head::Framing;

const LIMIT_BYTES: usize = 100;

/// Shorter inputs reach no other limit.
const SHORT_BYTES: usize = 200;

fuzz_target!(|input: (Option<u8>, u8, &[u8])| {
    let (length, piece_bytes, bytes) = input;
    let framing = length.map_or(Framing::Chunked, |length| Framing::Length(length.into()));
    let whole = decode(framing, bytes, bytes.len().max(1));
    assert_eq!(whole, decode(framing, bytes, 1));
    assert_eq!(
        whole,
        decode(framing, bytes, usize::from(piece_bytes).max(1))
    );
    if framing == Framing::Chunked {
        check_grammar(bytes, &whole);
    }
    let Ok((taken, body, is_complete)) = whole else {
        return;
    };
    assert!(taken <= bytes.len() && body.len() <= taken && body.len() <= LIMIT_BYTES);
    assert!(is_complete || taken == bytes.len());
    match framing {
        Framing::Length(length) => {
            assert_eq!(body, bytes[..taken]);
            assert_eq!(is_complete, length == taken as u64);
        }
        Framing::Chunked if is_complete => {
            let one_chunk = [
                format!("{:x}\r\n", body.len()).as_bytes(),
                &body,
                b"\r\n0\r\n\r\n",
            ]
            .concat();
            let sent = if body.is_empty() {
                &b"0\r\n\r\n"[..]
            } else {
                &one_chunk
            };
            assert_eq!(
                decode(framing, sent, sent.len()),
                Ok((sent.len(), body, true))
            );
        }
        Framing::Chunked => {}
    }
});

fn check_grammar(bytes: &[u8], found: &Result<(usize, Vec<u8>, bool), HttpError>) {
    let expected = read_chunks(bytes);
    match (found, &expected) {
        (Ok((taken, body, true)), _) => {
            let rest = bytes.len() - taken;
            assert_eq!(
                Some((body.clone(), rest)),
                expected,
                "accepted, but not in the grammar"
            );
        }
        (_, Some((body, _))) if bytes.len() < SHORT_BYTES && body.len() <= LIMIT_BYTES => {
            panic!("in the grammar, but rejected: {found:?}");
        }
        _ => {}
    }
}

/// Returns the body at the beginning of the bytes, and how many bytes follow it; `None` if it is malformed or incomplete.
fn read_chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut rest = bytes;
    let mut body = Vec::new();
    loop {
        let (line, after) = split_line(rest)?;
        let (digits, extensions) = split_while(line, |byte| byte.is_ascii_hexdigit());
        if !(1..=16).contains(&digits.len()) || !are_extensions(extensions) {
            return None;
        }
        let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            return Some((body, skip_trailers(after)?.len()));
        }
        let (data, after) = after.split_at_checked(usize::try_from(size).ok()?)?;
        body.extend_from_slice(data);
        rest = after.strip_prefix(b"\r\n")?;
    }
}

/// `*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )`
fn are_extensions(text: &[u8]) -> bool {
    if text.is_empty() {
        return true;
    }
    let Some(rest) = skip_spaces(text).strip_prefix(b";") else {
        return false;
    };
    let (name, rest) = split_while(skip_spaces(rest), is_token_byte);
    if name.is_empty() {
        return false;
    }
    let Some(value) = skip_spaces(rest).strip_prefix(b"=") else {
        return are_extensions(rest);
    };
    let value = skip_spaces(value);
    if let Some(quoted) = value.strip_prefix(b"\"") {
        return skip_quoted(quoted).is_some_and(are_extensions);
    }
    let (token, rest) = split_while(value, is_token_byte);
    !token.is_empty() && are_extensions(rest)
}

/// Returns the bytes after a quoted string (RFC 9110 5.6.4).
fn skip_quoted(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'"', rest @ ..] => Some(rest),
        [b'\\', byte, rest @ ..] if is_value_byte(*byte) => skip_quoted(rest),
        [b'\\', ..] => None,
        [byte, rest @ ..] if is_value_byte(*byte) => skip_quoted(rest),
        _ => None,
    }
}

fn skip_trailers(bytes: &[u8]) -> Option<&[u8]> {
    let (line, rest) = split_line(bytes)?;
    if line.is_empty() {
        return Some(rest);
    }
    let (name, value) = split_while(line, is_token_byte);
    let is_field = !name.is_empty() && value.starts_with(b":");
    let is_value = value.iter().all(|byte| is_value_byte(*byte));
    (is_field && is_value).then(|| skip_trailers(rest))?
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

fn split_while(bytes: &[u8], is_taken: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !is_taken(*byte));
    bytes.split_at(end.unwrap_or(bytes.len()))
}

fn skip_spaces(bytes: &[u8]) -> &[u8] {
    split_while(bytes, |byte| byte == b' ' || byte == b'\t').1
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (b' '..=b'~').contains(&byte) || byte >= 0x80
}

/// Decodes the bytes in pieces of this size. Returns how many bytes were taken, the body, and whether it is complete.
fn decode(
    framing: Framing,
    bytes: &[u8],
    piece_bytes: usize,
) -> Result<(usize, Vec<u8>, bool), HttpError> {
    let mut decoder = BodyDecoder::new(framing, LIMIT_BYTES);
    let mut taken = 0;
    for piece in bytes.chunks(piece_bytes) {
        let was_complete = decoder.is_complete();
        let more = decoder.decode(piece)?;
        assert!(more <= piece.len());
        assert!(
            !was_complete || more == 0,
            "bytes after the body were taken"
        );
        taken += more;
    }
    let is_complete = decoder.is_complete();
    Ok((taken, decoder.take_bytes(), is_complete))
}
