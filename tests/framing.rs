//! What is a request and what is not (RFC 9112, RFC 9110): a table of cases, each sent whole, in two parts split at
//! every byte, and byte by byte; and the rules of answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed one is a failed test
#![allow(clippy::indexing_slicing)]
mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rouille::{Request, Response};
use support::{Answer, Client, echo, limits, serve};

struct Case {
    line: &'static str,
    /// Statuses, and behind one what the handler saw.
    answers: Vec<&'static str>,
    /// What is sent; before each part but the first a 100 is waited for.
    parts: Vec<Vec<u8>>,
}

fn cases() -> Vec<Case> {
    let lines = include_str!("framing_cases.txt").lines();
    let cases: Vec<Case> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut columns = line.splitn(3, '|');
            let (Some(_), Some(answers), Some(bytes)) =
                (columns.next(), columns.next(), columns.next())
            else {
                panic!("three columns: {line}");
            };
            let answers = answers.trim();
            Case {
                line,
                answers: answers
                    .split(", ")
                    .filter(|answer| !answer.is_empty())
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

/// What a case is answered, sent in pieces that end at these places of each part.
fn ask(address: SocketAddr, case: &Case, places: impl Fn(usize) -> Vec<usize>) -> Vec<Answer> {
    let mut client = Client::connect(address);
    client.what = case.line;
    let mut answers = Vec::new();
    for (number, part) in case.parts.iter().enumerate() {
        if number > 0 {
            answers.push(client.receive());
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
    answers.extend(client.receive_all());
    answers
}

fn check(case: &Case, answers: &[Answer]) {
    let told: Vec<String> = answers
        .iter()
        .map(|answer| match answer.status {
            200 => format!("200 {}", answer.first_line()),
            status => status.to_string(),
        })
        .collect();
    // What follows the body of a request in `\x0d` form is compared as the handler escaped it.
    let wanted: Vec<String> = case
        .answers
        .iter()
        .map(|answer| answer.replace(r"\x0d", r"\r").replace(r"\x0a", r"\n"))
        .collect();
    assert_eq!(told, wanted, "{}", case.line);
    for answer in answers.iter().filter(|answer| answer.status >= 400) {
        assert!(answer.closes(), "{}: {answer:?}", case.line);
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(body["detail"].is_string() && body.as_object().unwrap().len() == 1);
        for (name, value) in [
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{}", case.line);
        }
    }
}

#[test]
fn every_case_is_answered_as_its_section_says() {
    let server = serve(limits(), echo);
    let cases = cases();
    for case in &cases {
        check(case, &ask(server.address, case, |_| vec![]));
    }
    eprintln!("{} cases", cases.len());
}

#[test]
fn every_case_is_answered_alike_split_at_every_byte_and_byte_by_byte() {
    let server = serve(limits(), echo);
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
) -> Vec<Answer> {
    let server = serve(limits(), handler);
    let mut client = server.connect();
    client.send(sent);
    client.send_no_more();
    client.receive_all()
}

#[test]
fn fields_reach_the_handler_in_order_and_past_ascii_as_latin_1() {
    let answers = exchange(
        echo,
        b"GET / HTTP/1.1\r\nHost: a\r\nB:  1 \r\nA: \xe9\r\nb: 2\r\n\r\n",
    );
    assert_eq!(answers[0].text(), "GET /\nHost: a\nB: 1\nA: é\nb: 2");
}

#[test]
fn the_host_of_an_absolute_form_is_the_handler_s_host_rfc_9112_3_2_2() {
    let answers = exchange(echo, b"GET http://b:81/c HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answers[0].text(), "GET /c\nHost: b:81");
}

#[test]
fn head_is_answered_as_get_without_the_body_rfc_9110_9_3_2() {
    let server = serve(limits(), |_| Response::text("four"));
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
fn a_refused_head_has_no_body_either() {
    let server = serve(limits(), echo);
    let mut client = server.connect();
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n");
    client.send_no_more();
    let head = client.receive_for(true).unwrap();
    assert_eq!(head.status, 413);
}

#[test]
fn a_204_has_neither_body_nor_length_rfc_9110_8_6() {
    let nothing = |_: &Request| Response::text("dropped").with_status_code(204);
    let answers = exchange(
        nothing,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let told: Vec<_> = answers
        .iter()
        .map(|answer| (answer.status, answer.header("Content-Length")))
        .collect();
    assert_eq!(told, [(204, None), (204, None)]);
}

#[test]
fn a_handler_cannot_break_the_framing() {
    let wild = |_: &Request| {
        Response::text("four")
            .with_additional_header("Content-Length", "9")
            .with_additional_header("Transfer-Encoding", "chunked")
            .with_additional_header("Connection", "upgrade")
            .with_additional_header("Date", "never")
            .with_additional_header("X-Split", "a\r\nX-Evil: b\r\n\r\nHTTP/1.1 200 OK")
            .with_additional_header("X-Good", "kept")
    };
    let answers = exchange(wild, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let [answer] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(
        (answer.text(), answer.header("X-Good")),
        ("four", Some("kept"))
    );
    for name in ["Transfer-Encoding", "X-Split", "X-Evil"] {
        assert_eq!(answer.header(name), None);
    }
    assert!(answer.header("Date").unwrap().ends_with(" GMT"));
}

#[test]
fn a_body_that_the_handler_leaves_unread_is_not_the_next_request() {
    let deaf = |request: &Request| Response::text(request.raw_url().to_owned());
    let answers = exchange(
        deaf,
        b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\
          POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n\
          GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let seen: Vec<_> = answers.iter().map(Answer::text).collect();
    assert_eq!(seen, ["/1", "/2", "/3"]);
}

#[test]
fn http_1_0_keep_alive_is_confirmed_and_its_absence_closes() {
    let answers = exchange(
        echo,
        b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
    );
    let told: Vec<_> = answers
        .iter()
        .map(|answer| answer.header("Connection"))
        .collect();
    assert_eq!(told, [Some("keep-alive"), Some("close")]);
}

#[test]
fn a_large_answer_arrives_whole() {
    let large = |_: &Request| Response::from_data("text/plain", vec![b'x'; 8 << 20]);
    let answers = exchange(
        large,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let sizes: Vec<_> = answers.iter().map(|answer| answer.body.len()).collect();
    assert_eq!(sizes, [8 << 20, 8 << 20]);
}
