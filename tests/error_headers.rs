//! The application's headers on the server's own error responses: those for the request at hand where its headers are
//! known, else those for a request without headers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed one is a failed test
#![allow(clippy::indexing_slicing)]
mod support;

use std::time::Duration;

use movies_api::http::Limits;
use rouille::{Request, Response};
use support::{Answer, Gate, echo, limits, serve};

/// The status of the last answer, and the marks that the tests' server puts on error responses.
fn marks(answer: &Answer) -> (u16, Option<&str>, Option<&str>) {
    (
        answer.status,
        answer.header("X-Error"),
        answer.header("X-Mark"),
    )
}

fn check(limits: Limits, sent: &[u8], expected: (u16, Option<&str>, Option<&str>)) {
    let server = serve(limits, echo);
    let mut client = server.connect();
    client.send(sent);
    let last = loop {
        let answer = client.receive();
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!(marks(&last), expected, "{:?}", sent.escape_ascii());
}

#[test]
fn error_response_after_the_head_has_the_headers_for_its_request() {
    let short = Limits {
        body_deadline: Duration::from_millis(200),
        ..limits()
    };
    let head = "POST / HTTP/1.1\r\nHost: a\r\nx-mark: 1\r\n";
    for (limits, rest, status) in [
        (limits(), "Content-Length: 9999999\r\n\r\n", 413),
        (
            limits(),
            "Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n",
            413,
        ),
        (
            limits(),
            "Transfer-Encoding: chunked\r\n\r\n9999999\r\n",
            413,
        ),
        (limits(), "Transfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (short, "Content-Length: 9\r\n\r\nb", 408),
        (short, "Transfer-Encoding: chunked\r\n\r\n1\r\nb", 408),
    ] {
        let sent = [head, rest].concat();
        check(limits, sent.as_bytes(), (status, Some("yes"), Some("1")));
    }
    let panics = b"GET /panic HTTP/1.1\r\nHost: a\r\nX-Mark: 2\r\n\r\n";
    check(limits(), panics, (500, Some("yes"), Some("2")));
}

#[test]
fn error_response_of_a_handler_s_timeout_has_the_headers_for_its_request() {
    let gate = Gate::new();
    let limits = Limits {
        request_timeout: Duration::from_millis(200),
        ..limits()
    };
    let passed = gate.clone();
    let server = serve(limits, move |_: &Request| {
        passed.pass();
        Response::text("late")
    });
    let mut client = server.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Mark: 3\r\n\r\n");
    assert_eq!(marks(&client.receive()), (503, Some("yes"), Some("3")));
    gate.open();
}

#[test]
fn error_response_without_a_known_head_has_no_headers_of_an_earlier_request() {
    let earlier = "GET / HTTP/1.1\r\nHost: a\r\nX-Mark: 1\r\n\r\n";
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000));
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Mark: 2\r\nA: {}",
        "x".repeat(20_000)
    );
    for (sent, status) in [
        ("BAD\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nX-Mark: 2\r\n\r\n", 400),
        ("GET / HTTP/9.1\r\nHost: a\r\n\r\n", 505),
        (&*long, 414),
        (&*large, 431),
    ] {
        let sent = [earlier, sent].concat();
        check(limits(), sent.as_bytes(), (status, Some("yes"), None));
    }
}

#[test]
fn responses_of_handlers_have_none_of_these_headers() {
    let server = serve(limits(), echo);
    let mut client = server.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Mark: 1\r\n\r\n");
    assert_eq!(marks(&client.receive()), (200, None, None));
}
