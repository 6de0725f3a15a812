//! Parsing and framing (RFC 9112, RFC 9110): a table of cases, each sent at once, in two parts split at every byte, and
//! byte by byte; and the framing of responses.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Client, ReceivedResponse, echo, limits, start};
use rouille::{Request, Response};

struct Case {
    line: &'static str,
    /// Expected statuses, 200 followed by what the handler sees.
    responses: Vec<&'static str>,
    /// The bytes to send. Before each part but the first, the client waits for 100 Continue.
    parts: Vec<Vec<u8>>,
}

fn cases() -> Vec<Case> {
    let lines = include_str!("framing_cases.txt").lines();
    let cases: Vec<Case> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut columns = line.splitn(3, '|');
            let (Some(_), Some(responses), Some(bytes)) =
                (columns.next(), columns.next(), columns.next())
            else {
                panic!("three columns: {line}");
            };
            let responses = responses.trim();
            Case {
                line,
                responses: responses
                    .split(", ")
                    .filter(|response| !response.is_empty())
                    .collect(),
                parts: bytes[1..].split('→').map(unescape).collect(),
            }
        })
        .collect();
    assert!(cases.len() > 360, "only {} cases", cases.len());
    cases
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            ('¶', _) => bytes.extend_from_slice(b"\r\n"),
            (_, true) => bytes.push(match characters.next().unwrap() {
                'n' => b'\n',
                'r' => b'\r',
                't' => b'\t',
                '0' => 0,
                'x' => {
                    let digits: String = characters.by_ref().take(2).collect();
                    u8::from_str_radix(&digits, 16).unwrap()
                }
                other => panic!("\\{other}"),
            }),
            _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Sends a case, each part of it in pieces that end at these places, and returns the responses.
fn ask(
    address: SocketAddr,
    case: &Case,
    places: impl Fn(usize) -> Vec<usize>,
) -> Vec<ReceivedResponse> {
    let mut client = Client::connect(address);
    client.what = case.line;
    let mut responses = Vec::new();
    for (number, part) in case.parts.iter().enumerate() {
        if number > 0 {
            responses.push(client.receive());
        }
        let mut from = 0;
        for to in places(part.len()) {
            client.send(&part[from..to]);
            std::thread::yield_now();
            from = to;
        }
        client.send(&part[from..]);
    }
    client.send_no_more();
    responses.extend(client.receive_all());
    responses
}

fn check(case: &Case, responses: &[ReceivedResponse]) {
    let found: Vec<String> = responses
        .iter()
        .map(|response| match response.status {
            200 => format!("200 {}", response.first_line()),
            status => status.to_string(),
        })
        .collect();
    // The handler escapes `\x0d` as `\r`.
    let expected: Vec<String> = case
        .responses
        .iter()
        .map(|response| response.replace(r"\x0d", r"\r").replace(r"\x0a", r"\n"))
        .collect();
    assert_eq!(found, expected, "{}", case.line);
    for response in responses.iter().filter(|response| response.status >= 400) {
        assert!(response.closes(), "{}: {response:?}", case.line);
        assert_eq!(response.header("Content-Type"), Some("application/json"));
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert!(body["detail"].is_string() && body.as_object().unwrap().len() == 1);
        for (name, value) in [
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
        ] {
            assert_eq!(response.header(name), Some(value), "{}", case.line);
        }
    }
}

#[test]
fn every_case_returns_the_expected_responses() {
    let server = start(limits(), echo);
    let cases = cases();
    for case in &cases {
        check(case, &ask(server.address, case, |_| vec![]));
    }
    eprintln!("{} cases", cases.len());
}

#[test]
fn every_case_returns_the_same_responses_however_it_is_split() {
    let server = start(limits(), echo);
    let cases = cases();
    let (next, sent) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let longest = case.parts.iter().map(Vec::len).max().unwrap();
                    for place in 1..longest {
                        let split = |length: usize| vec![place.min(length)];
                        check(case, &ask(server.address, case, split));
                    }
                    check(
                        case,
                        &ask(server.address, case, |length| (1..length).collect()),
                    );
                    sent.fetch_add(longest, Ordering::Relaxed);
                }
            });
        }
    });
    eprintln!("{} ways to send {} cases", sent.into_inner(), cases.len());
}

fn exchange(
    handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    sent: &[u8],
) -> Vec<ReceivedResponse> {
    let server = start(limits(), handler);
    let mut client = server.connect();
    client.send(sent);
    client.send_no_more();
    client.receive_all()
}

#[test]
fn headers_reach_the_handler_in_order_and_as_latin_1() {
    let responses = exchange(
        echo,
        b"GET / HTTP/1.1\r\nHost: a\r\nB:  1 \r\nA: \xe9\r\nb: 2\r\n\r\n",
    );
    assert_eq!(responses[0].text(), "GET /\nHost: a\nB: 1\nA: é\nb: 2");
}

#[test]
fn host_of_an_absolute_target_replaces_the_host_header() {
    let responses = exchange(echo, b"GET http://b:81/c HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(responses[0].text(), "GET /c\nHost: b:81");
}

#[test]
fn head_returns_the_headers_of_get_without_the_body() {
    let server = start(limits(), |_| Response::text("four"));
    let mut client = server.connect();
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.receive_for(true).unwrap();
    let get = client.receive();
    assert_eq!(
        (head.header("Content-Length"), head.body.len()),
        (Some("4"), 0)
    );
    assert_eq!(
        (get.header("Content-Length"), get.text()),
        (Some("4"), "four")
    );
}

#[test]
fn rejected_head_request_returns_no_body() {
    let server = start(limits(), echo);
    let mut client = server.connect();
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n");
    client.send_no_more();
    let head = client.receive_for(true).unwrap();
    assert_eq!(head.status, 413);
}

#[test]
fn status_204_has_neither_body_nor_length() {
    let nothing = |_: &Request| Response::text("dropped").with_status_code(204);
    let responses = exchange(
        nothing,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let found: Vec<_> = responses
        .iter()
        .map(|response| (response.status, response.header("Content-Length")))
        .collect();
    assert_eq!(found, [(204, None), (204, None)]);
}

#[test]
fn handler_cannot_break_the_framing() {
    let handler = |_: &Request| {
        Response::text("four")
            .with_additional_header("Content-Length", "9")
            .with_additional_header("Transfer-Encoding", "chunked")
            .with_additional_header("Connection", "upgrade")
            .with_additional_header("Date", "never")
            .with_additional_header("X-Split", "a\r\nX-Evil: b\r\n\r\nHTTP/1.1 200 OK")
            .with_additional_header("X-Good", "kept")
    };
    let responses = exchange(handler, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let [response] = &responses[..] else {
        panic!("{responses:?}");
    };
    assert_eq!(
        (response.text(), response.header("X-Good")),
        ("four", Some("kept"))
    );
    for name in ["Transfer-Encoding", "X-Split", "X-Evil"] {
        assert_eq!(response.header(name), None);
    }
    assert!(response.header("Date").unwrap().ends_with(" GMT"));
}

#[test]
fn unread_body_is_not_parsed_as_the_next_request() {
    let handler = |request: &Request| Response::text(request.raw_url().to_owned());
    let responses = exchange(
        handler,
        b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\
          POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n\
          GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let seen: Vec<_> = responses.iter().map(ReceivedResponse::text).collect();
    assert_eq!(seen, ["/1", "/2", "/3"]);
}

#[test]
fn http_1_0_connection_stays_open_only_with_keep_alive() {
    let responses = exchange(
        echo,
        b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
    );
    let found: Vec<_> = responses
        .iter()
        .map(|response| response.header("Connection"))
        .collect();
    assert_eq!(found, [Some("keep-alive"), Some("close")]);
}

#[test]
fn large_response_arrives_completely() {
    let large = |_: &Request| Response::from_data("text/plain", vec![b'x'; 8 << 20]);
    let responses = exchange(
        large,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let sizes: Vec<_> = responses
        .iter()
        .map(|response| response.body.len())
        .collect();
    assert_eq!(sizes, [8 << 20, 8 << 20]);
}
