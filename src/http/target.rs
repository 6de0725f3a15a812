//! A request's target and its authority (RFC 9112 3.2, RFC 3986 3.2). Knows no sockets and no paths of ours.
use std::borrow::Cow;
use std::net::Ipv6Addr;

use super::refusal::Refusal;

/// What a target asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Origin-form, or `*`.
    pub path_and_query: Cow<'a, str>,
    /// The host that an absolute-form names.
    pub authority: Option<&'a str>,
}

/// The target as a handler sees it, from any of its four forms.
///
/// # Errors
/// 400 for what is none of the forms, for a fragment, and for CONNECT: this is no proxy.
pub(super) fn judge_target<'a>(method: &str, target: &'a str) -> Result<Target<'a>, Refusal> {
    let malformed = Refusal::Malformed("The target is malformed.");
    if method == "CONNECT" || target.contains('#') {
        return Err(malformed);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(Target {
            path_and_query: target.into(),
            authority: None,
        });
    }
    let (scheme, rest) = target.split_once("://").ok_or(malformed)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(malformed);
    }
    let (authority, asked) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !is_authority(authority.as_bytes()) {
        return Err(malformed);
    }
    let path_and_query = match asked {
        // The whole server is meant (RFC 9112 3.2.4).
        "" if method == "OPTIONS" => "*".into(),
        _ if asked.starts_with('/') => asked.into(),
        _ => format!("/{asked}").into(),
    };
    Ok(Target {
        path_and_query,
        authority: Some(authority),
    })
}

/// Whether it is a host with or without a port: no user, not empty (RFC 9110 4.2.1, 4.2.4).
pub(super) fn is_authority(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit())
        && (port.is_empty() || port.parse::<u16>().is_ok());
    let literal = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    is_port && literal.map_or_else(|| is_name(host), |inner| inner.parse::<Ipv6Addr>().is_ok())
}

/// A registered name or an IPv4 address (RFC 3986 3.2.2).
fn is_name(host: &str) -> bool {
    let mut rest = host.as_bytes();
    loop {
        rest = match rest {
            [] => return !host.is_empty(),
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..]
                if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) =>
            {
                rest
            }
            _ => return false,
        };
    }
}
