//! Error responses of the server are rendered by the application, which sees the headers of the request if they are
//! known.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::support::{Client, Gate, ReceivedResponse, echo, limits, start, wait_until};
use movies_api::http::{Class, Limits, Server};
use rouille::{Request, Response};

/// Returns the status, and the headers that the renderer of the tests adds.
fn marks(response: &ReceivedResponse) -> (u16, Option<&str>, Option<&str>) {
    (
        response.status,
        response.header("X-Error"),
        response.header("X-Mark"),
    )
}

fn check(limits: Limits, sent: &[u8], expected: (u16, Option<&str>, Option<&str>)) {
    let server = start(limits, echo);
    let mut client = server.connect();
    client.send(sent);
    let last = loop {
        let response = client.receive();
        if response.status != 200 {
            break response;
        }
    };
    assert_eq!(marks(&last), expected, "{:?}", sent.escape_ascii());
}

#[test]
fn error_response_after_the_head_is_rendered_with_the_request_headers() {
    let short = Limits {
        body_timeout: Duration::from_millis(200),
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
fn error_response_to_a_shed_request_is_rendered_with_the_request_headers() {
    let gate = Gate::new();
    let limits = Limits {
        workers: 1,
        request_timeout: Duration::from_millis(200),
        ..limits()
    };
    let passed = gate.clone();
    let server = start(limits, move |_: &Request| {
        passed.pass();
        Response::text("late")
    });
    let mut stuck = server.connect();
    stuck.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Mark: 2\r\n\r\n");
    wait_until("stuck", || {
        server.stats.in_flight.load(Ordering::Relaxed) == 1
    });
    let mut queued = server.connect();
    queued.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Mark: 3\r\n\r\n");
    assert_eq!(marks(&queued.receive()), (503, Some("yes"), Some("3")));
    gate.open();
}

#[test]
fn error_response_before_the_head_does_not_see_headers_of_an_earlier_request() {
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
fn handler_responses_do_not_pass_through_the_error_renderer() {
    let server = start(limits(), echo);
    let mut client = server.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Mark: 1\r\n\r\n");
    assert_eq!(marks(&client.receive()), (200, None, None));
}

#[test]
fn errors_are_plain_text_unless_a_renderer_is_set() {
    let address = "127.0.0.1:0".parse().unwrap();
    let classify = |_: &Request| Class::Ordinary;
    let server = Server::bind(address, limits(), classify, |request, _| echo(request)).unwrap();
    let (address, handle) = (server.local_address(), server.shutdown_handle());
    let thread = thread::spawn(move || server.run());
    let mut client = Client::connect(address);
    client.send(b"GET / HTTP/1.1\r\n\r\n");
    let response = client.receive();
    assert_eq!(response.status, 400);
    assert_eq!(
        response.header("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(response.text(), "The Host header is missing.");
    handle.shut_down();
    thread.join().unwrap().unwrap();
}
