//! Options of the API as plain values. Does not depend on handlers, so the configuration can parse them.
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Whose movies a user may read. Only the creator of a movie may change or delete it, with either value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Visibility {
    /// Their own
    Own,
    /// Everybody's
    Shared,
}

/// A web origin as browsers send it in the Origin header: scheme, host and port in lower case, without the scheme's
/// default port (RFC 6454 6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(pub(super) String);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Origin, String> {
        let text = text.trim().to_ascii_lowercase();
        let (scheme, default_port) = match text.starts_with("https:") {
            true => ("https://", ":443"),
            false => ("http://", ":80"),
        };
        match text.strip_prefix(scheme) {
            Some(host) if is_valid_host(host) => {
                let host = host.strip_suffix(default_port).unwrap_or(host);
                Ok(Origin(format!("{scheme}{host}")))
            }
            _ => Err("must be a list of origins such as https://app.example.com".to_owned()),
        }
    }
}

/// Whether `host` is a name or an IP address, with or without a port (RFC 3986 3.2.2). Percent-encoding and punctuation
/// other than `-._~` are rejected, since the host is repeated in links.
pub(super) fn is_valid_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, "0"),
    };
    let is_valid_name = match inside_brackets(name) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(is_unreserved),
    };
    is_valid_name && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Whether a URL may have the character without percent-encoding it (RFC 3986 2.3).
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// `::1` for `[::1]`.
pub(super) fn inside_brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_normalized_as_browsers_send_it() {
        for (text, normalized) in [
            ("https://app.example.com", "https://app.example.com"),
            (" HTTP://Localhost:3000", "http://localhost:3000"),
            ("HTTPS://[::1]:8443", "https://[::1]:8443"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://app.example.com:80", "http://app.example.com"),
            ("http://app.example.com:443", "http://app.example.com:443"),
        ] {
            assert_eq!(
                text.parse::<Origin>(),
                Ok(Origin(normalized.into())),
                "{text}"
            );
        }
        for invalid in [
            "*",
            "null",
            "app.example.com",
            "https://",
            "https://a/",
            "https://a b",
            "ftp://a",
        ] {
            assert!(invalid.parse::<Origin>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn hosts_are_names_and_addresses() {
        for host in [
            "a",
            "a-b.c-d:8000",
            "192.0.2.7:1",
            "[::1]",
            "[::1]:8000",
            "a_b",
        ] {
            assert!(is_valid_host(host), "{host}");
        }
        for host in [
            "",
            "a b",
            "a/b",
            "u@h",
            "h:port",
            "h:",
            "a,b",
            "a\\b",
            "ex%61mple",
            "a\"b",
            "[::1",
            "::1",
            "a:70000",
            "[x]",
            "a:1:2",
            "é",
        ] {
            assert!(!is_valid_host(host), "{host}");
        }
    }
}
