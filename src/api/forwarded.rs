//! What a reverse proxy forwards about a request: the client's IP address, and the scheme and host that the client used.
//! Only proxies in `trusted`, the setting TRUSTED_PROXIES, are believed.
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use rouille::Request;

use super::error::ApiError;
use super::headers;
use super::options::{inside_brackets, is_valid_host};

/// The scheme and host under which the client reached the service, such as `http://example.com:8000`: from X-Forwarded-Proto
/// and X-Forwarded-Host of a trusted proxy, else from the Host header.
///
/// # Errors
/// [`ApiError::InvalidHost`], since the host is repeated in links.
pub fn base_url(request: &Request, trusted: &[IpNet]) -> Result<String, ApiError> {
    let scheme = match forwarded_value(request, "X-Forwarded-Proto", trusted) {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        _ => "http",
    };
    let host = forwarded_value(request, "X-Forwarded-Host", trusted);
    match host.or_else(|| request.header("Host")) {
        Some(host) if is_valid_host(host) => Ok(format!("{scheme}://{host}")),
        _ => Err(ApiError::InvalidHost),
    }
}

/// The client's IP address: the peer's, or the one in X-Forwarded-For if the peer is a trusted proxy. Each proxy appends the
/// address of its own peer, so the client is the last address that is not a trusted proxy; those before it were sent by the
/// client and prove nothing. IPv6 addresses are cut to their first 64 bits, since one client usually has a whole /64.
pub fn client_ip(request: &Request, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer_ip(request);
    // Some proxies add a header, others append to the value.
    let forwarded = headers::joined(request, "X-Forwarded-For").unwrap_or_default();
    for value in forwarded.rsplit(',') {
        match parse_address(value.trim()) {
            Some(address) if is_in(trusted, client) => client = address,
            _ => break,
        }
    }
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// The value of a header that a trusted proxy sets; `None` if the peer is not one. Of several values the last counts: the
/// others may have been sent by the client.
pub fn forwarded_value<'a>(
    request: &'a Request,
    name: &'a str,
    trusted: &[IpNet],
) -> Option<&'a str> {
    if !is_in(trusted, peer_ip(request)) {
        return None;
    }
    let last_header = headers::all(request, name).last()?;
    last_header.rsplit(',').next().map(str::trim)
}

fn peer_ip(request: &Request) -> IpAddr {
    request.remote_addr().ip().to_canonical()
}

fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Parses an address with or without a port, and IPv6 with or without brackets: proxies write all of these.
fn parse_address(text: &str) -> Option<IpAddr> {
    let address = inside_brackets(text).unwrap_or(text).parse();
    let address = address.or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip()));
    address.ok().map(|address| address.to_canonical())
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
    fn forwarded_headers_count_only_from_trusted_peers() {
        let headers = [
            ("Host", "inner"),
            ("X-Forwarded-Host", "evil, outer"),
            ("X-Forwarded-Proto", "https"),
        ];
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let url = |peer| base_url(&request(peer, &headers), &trusted).unwrap();
        assert_eq!(url([10, 1, 2, 3]), "https://outer");
        assert_eq!(url([192, 0, 2, 1]), "http://inner");
        assert!(
            base_url(
                &request([10, 0, 0, 1], &[("X-Forwarded-Host", "a b")]),
                &trusted
            )
            .is_err()
        );
    }

    #[test]
    fn last_of_repeated_headers_counts() {
        let headers = [("X-Forwarded-Host", "evil"), ("X-Forwarded-Host", "outer")];
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let url = base_url(&request([10, 0, 0, 1], &headers), &trusted);
        assert_eq!(url.unwrap(), "http://outer");
    }

    #[test]
    fn client_is_the_last_forwarded_address_that_is_not_a_trusted_proxy() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "2001:db8:ffff::/48"]
            .map(|network| network.parse().unwrap())
            .into();
        for (values, client) in [
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
            let headers: Vec<_> = values
                .iter()
                .map(|value| ("X-Forwarded-For", *value))
                .collect();
            let found = |peer| client_ip(&request(peer, &headers), &trusted).to_string();
            assert_eq!(found([10, 0, 0, 1]), client, "{values:?}");
            assert_eq!(found([203, 0, 113, 5]), "203.0.113.5", "{values:?}");
        }
    }
}
