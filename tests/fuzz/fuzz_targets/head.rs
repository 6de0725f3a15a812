//! Parses any bytes as a head. The result does not depend on how many bytes arrive at once, and a head that is written out
//! again parses to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use movies_api::http::Limits;
use movies_api::http::head::{Head, parse_head};

/// Longer inputs add nothing, since the limits are small.
const MAX_BYTES: usize = 600;

fn limits() -> Limits {
    Limits {
        max_head_bytes: 256,
        max_headers: 6,
        max_target_bytes: 64,
        ..Limits::default()
    }
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.len() > MAX_BYTES {
        return;
    }
    let limits = limits();
    let whole = parse_head(bytes, &limits);
    let mut is_rejected = false;
    for end in 0..bytes.len() {
        match parse_head(&bytes[..end], &limits) {
            Ok(None) => assert!(!is_rejected, "an error was followed by a success"),
            Ok(Some(found)) => {
                assert!(found.1 <= end);
                assert_eq!(whole, Ok(Some(found)), "bytes after a head changed it");
            }
            Err(_) => is_rejected = true,
        }
    }
    assert!(
        !is_rejected || whole.is_err(),
        "an error was followed by a success"
    );
    if let Ok(Some((head, taken))) = whole {
        assert!(taken <= bytes.len());
        check_target(&bytes[..taken]);
        check(&head);
    }
});

/// The target of an accepted request was sent in ASCII, except for UTF-8 in its query.
fn check_target(bytes: &[u8]) {
    let line = bytes
        .split(|byte| b"\r\n".contains(byte))
        .find(|line| !line.is_empty());
    let target = line.unwrap().split(|byte| *byte == b' ').nth(1).unwrap();
    let path = target.split(|byte| *byte == b'?').next().unwrap();
    assert!(path.is_ascii() && std::str::from_utf8(target).is_ok());
}

fn check(head: &Head) {
    assert!(head.target.starts_with('/') || head.target == "*");
    assert!(head.target.bytes().all(|byte| byte.is_ascii_graphic()));
    let hosts = head.headers.iter();
    let hosts = hosts.filter(|(name, _)| name.eq_ignore_ascii_case("host"));
    assert!(hosts.count() == 1 || head.is_http_10);
    let version = if head.is_http_10 { "1.0" } else { "1.1" };
    let mut text = format!("{} {} HTTP/{version}\r\n", head.method, head.target);
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    // Each character of a value is one byte.
    let bytes: Vec<_> = text.chars().map(|character| character as u8).collect();
    let again = parse_head(&bytes, &Limits::default());
    assert_eq!(again, Ok(Some((head.clone(), bytes.len()))));
}
