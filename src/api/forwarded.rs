//! What is believed of a proxy, and of whom: where the client is, and under which scheme and host it reached us.
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use rouille::Request;

use super::error::Error;
use super::headers::find_all;

/// Scheme and host under which the client reached the service, such as `http://example.com:8000`: the Host header,
/// or what a proxy inside `trusted` forwards.
///
/// # Errors
/// 400 if the host is no host: it would be echoed in links.
pub fn find_origin(request: &Request, trusted: &[IpNet]) -> Result<String, Error> {
    let scheme = match find_forwarded(request, "X-Forwarded-Proto", trusted) {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        _ => "http",
    };
    let host = find_forwarded(request, "X-Forwarded-Host", trusted);
    match host.or_else(|| request.header("Host")) {
        Some(host) if is_host(host) => Ok(format!("{scheme}://{host}")),
        _ => Err(Error::InvalidHost),
    }
}

/// Where the client is: the peer, or what X-Forwarded-For says if the peer is a proxy inside `trusted`. Each proxy adds
/// whom it saw at the end, so of several the last that is no trusted proxy itself is the client; what stands before was
/// sent by the client and means nothing. Of an IPv6 address the first 64 bits are told, since whoever has one has all of
/// its /64.
pub fn find_client(request: &Request, trusted: &[IpNet]) -> IpAddr {
    let mut client = find_peer(request);
    for value in values_from_last(request, "X-Forwarded-For") {
        match parse_address(value) {
            Some(seen) if is_inside(trusted, client) => client = seen,
            _ => break,
        }
    }
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// A header's value, if the peer is a proxy inside `trusted`. Of several the last counts, the one that this proxy itself
/// added.
pub fn find_forwarded<'a>(
    request: &'a Request,
    name: &'a str,
    trusted: &[IpNet],
) -> Option<&'a str> {
    let is_trusted = is_inside(trusted, find_peer(request));
    values_from_last(request, name)
        .next()
        .filter(|_| is_trusted)
}

fn find_peer(request: &Request) -> IpAddr {
    request.remote_addr().ip().to_canonical()
}

fn is_inside(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// A header's values from the last to the first, over all of its lines: some proxies add a line, others to the line.
fn values_from_last<'a>(request: &'a Request, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines: Vec<_> = find_all(request, name).collect();
    let values = lines.into_iter().rev().flat_map(|line| line.rsplit(','));
    values.map(str::trim)
}

/// An address with or without a port, and IPv6 with or without brackets: proxies write all of them.
fn parse_address(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = inner.unwrap_or(text).parse().ok();
    let address = address.or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
    address.map(|address| address.to_canonical())
}

/// Whether it is a name or an address, with or without a port (RFC 3986 3.2.2, of which percent-encoded names and
/// marks other than `-._~` are left out).
pub fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let has_good_port = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    let inner = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_name = |name: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        !name.is_empty() && name.bytes().all(is_allowed)
    };
    has_good_port && inner.map_or_else(|| is_name(name), |inner| inner.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(peer: [u8; 4], headers: &[(&str, &str)]) -> Request {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers = headers.iter().map(owned).collect();
        Request::fake_http_from((peer, 1).into(), "GET", "/", headers, Vec::new())
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
            assert!(is_host(host), "{host}");
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
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn forwarded_values_are_believed_from_trusted_peers_alone() {
        let headers = [
            ("Host", "inner"),
            ("X-Forwarded-Host", "evil, outer"),
            ("X-Forwarded-Proto", "https"),
        ];
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let origin = |peer| find_origin(&request(peer, &headers), &trusted).unwrap();
        assert_eq!(origin([10, 1, 2, 3]), "https://outer");
        assert_eq!(origin([192, 0, 2, 1]), "http://inner");
        assert!(
            find_origin(
                &request([10, 0, 0, 1], &[("X-Forwarded-Host", "a b")]),
                &trusted
            )
            .is_err()
        );
    }
    #[test]
    fn of_several_lines_of_a_header_the_last_is_the_proxy_s_own() {
        let headers = [("X-Forwarded-Host", "evil"), ("X-Forwarded-Host", "outer")];
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let origin = find_origin(&request([10, 0, 0, 1], &headers), &trusted);
        assert_eq!(origin.unwrap(), "http://outer");
    }

    #[test]
    fn the_client_is_the_last_forwarded_address_that_is_no_trusted_proxy() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "2001:db8:ffff::/48"]
            .map(|network| network.parse().unwrap())
            .into();
        for (lines, client) in [
            (vec![], "10.0.0.1"),
            (vec!["192.0.2.7"], "192.0.2.7"),
            (vec!["198.51.100.1, 192.0.2.7"], "192.0.2.7"),
            (vec!["198.51.100.1", "192.0.2.7"], "192.0.2.7"),
            (vec!["198.51.100.1", "192.0.2.7,10.9.9.9"], "192.0.2.7"),
            (vec!["192.0.2.7 , 10.9.9.9\t,10.0.0.2"], "192.0.2.7"),
            (vec!["10.9.9.9, 10.0.0.2"], "10.9.9.9"),
            (vec!["192.0.2.7:4711"], "192.0.2.7"),
            (vec!["::ffff:192.0.2.7"], "192.0.2.7"),
            (vec!["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::"),
            (vec!["[2001:db8:1:2::1]"], "2001:db8:1:2::"),
            (vec!["[2001:db8:1:2::1]:443"], "2001:db8:1:2::"),
            (vec!["192.0.2.7, 2001:db8:ffff::1"], "192.0.2.7"),
            (vec!["192.0.2.7, unknown"], "10.0.0.1"),
            (vec!["192.0.2.7, "], "10.0.0.1"),
            (vec!["192.0.2.7, unknown, 10.0.0.2"], "10.0.0.2"),
        ] {
            let headers: Vec<_> = lines
                .iter()
                .map(|line| ("X-Forwarded-For", *line))
                .collect();
            let found = |peer| find_client(&request(peer, &headers), &trusted).to_string();
            assert_eq!(found([10, 0, 0, 1]), client, "{lines:?}");
            assert_eq!(found([203, 0, 113, 5]), "203.0.113.5", "{lines:?}");
        }
    }
}
