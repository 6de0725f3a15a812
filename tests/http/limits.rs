//! Limits of one client (size and duration of a request), and of all clients together (connections and memory).

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Client, ReceivedResponse, TEST_TIMEOUT, TestServer, echo, limits, start, wait_until,
};
use movies_api::http::Limits;
use rouille::{Request, Response};

const SHORT: Duration = Duration::from_millis(300);

/// A timeout that ends later than `SHORT` on the slowest machine; that of the client of [`send_partially`].
const LONG: Duration = Duration::from_secs(4);

/// More than the kernel buffers for a client that reads nothing.
const UNREADABLE_BYTES: usize = 32 << 20;

fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

/// Returns a head of this size.
fn head_of(bytes: usize) -> Vec<u8> {
    let padding = bytes - get("/", "A: \r\n").len();
    get("/", &format!("A: {}\r\n", "x".repeat(padding)))
}

fn post(body: &[u8], announced_bytes: usize) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {announced_bytes}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn ask(server: &TestServer, sent: &[u8]) -> ReceivedResponse {
    let mut client = server.connect();
    client.send(sent);
    client.receive()
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Receives an error response, which closes the connection.
fn assert_error(client: &mut Client, status: u16) -> ReceivedResponse {
    let response = client.receive();
    assert_eq!((response.status, response.closes()), (status, true));
    let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert!(body["detail"].is_string(), "{body}");
    let is_for_later = response.header("Retry-After").is_some();
    assert_eq!(is_for_later, status == 503);
    assert!(client.is_closed());
    response
}

#[test]
fn head_beyond_16_kib_or_100_headers_returns_431_and_target_beyond_8_kib_414() {
    let server = start(limits(), echo);
    let fields = |count: usize| "A: b\r\n".repeat(count - 1);
    let target = |bytes: usize| format!("/{}", "t".repeat(bytes - 1));
    for (sent, status) in [
        (head_of(16 * 1024), 200),
        (head_of(16 * 1024 + 1), 431),
        (get("/", &fields(60)), 200),
        (get("/", &fields(100)), 200),
        (get("/", &fields(101)), 431),
        (get(&target(7_900), ""), 200),
        (get(&target(8 * 1024), ""), 200),
        (get(&target(8 * 1024 + 1), ""), 414),
    ] {
        assert_eq!(ask(&server, &sent).status, status);
    }
}

#[test]
fn endless_head_or_target_is_rejected_at_its_limit() {
    let server = start(limits(), echo);
    for (beginning, status) in [
        (&b"GET /"[..], 414),
        (b"GET", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: ", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA", 431),
    ] {
        let mut client = server.connect();
        client.send(beginning);
        client.send(&[b'a'; 17 * 1024]);
        assert_error(&mut client, status);
    }
}

#[test]
fn content_length_beyond_limit_returns_413_before_the_body_arrives() {
    let server = start(limits(), echo);
    let mib = 1024 * 1024;
    assert_eq!(ask(&server, &post(&vec![b'x'; mib], mib)).status, 200);
    let mut client = server.connect();
    client.send(&post(b"", mib + 1));
    assert_error(&mut client, 413);
}

#[test]
fn chunk_beyond_limit_returns_413_as_soon_as_its_size_arrives() {
    let limits = Limits {
        max_body_bytes: 100,
        ..limits()
    };
    let server = start(limits, echo);
    let mut client = server.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n32\r\n");
    client.send(&[b'x'; 50]);
    client.send(b"\r\n32\r\n");
    client.send(&[b'x'; 50]);
    client.send(
        b"\r\n0\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n32\r\n",
    );
    assert_eq!(client.receive().status, 200);
    client.send(&[b'x'; 50]);
    client.send(b"\r\n33\r\n");
    assert_error(&mut client, 413);
}

#[test]
fn error_response_to_head_request_has_no_body() {
    let server = start(limits(), echo);
    for sent in [
        &b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"[..],
        b"\r\nHEAD / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx",
    ] {
        let mut client = server.connect();
        client.send(sent);
        let response = client.receive_for(true).unwrap();
        assert!(response.status >= 400 && response.header("Content-Length").is_some());
        assert!(client.is_closed(), "{}", sent.escape_ascii());
    }
}

/// Connects a client whose head or body is never complete. If the timeout of that part is [`LONG`], what must happen within
/// [`SHORT`] happens before the server closes this connection.
fn send_partially(server: &TestServer, beginning: &[u8]) -> Client {
    let mut client = server.connect();
    client.send(beginning);
    client
}

/// Sends the beginning and then byte after byte, each in time, until the server responds with 408.
fn trickle(server: &TestServer, beginning: &[u8], byte: &[u8]) -> Client {
    let mut client = server.connect();
    let is_rejected = AtomicBool::new(false);
    let mut socket = client.share();
    thread::scope(|scope| {
        scope.spawn(|| {
            socket.send(beginning);
            let begun = Instant::now();
            while !is_rejected.load(Ordering::Relaxed) && begun.elapsed() < TEST_TIMEOUT * 2 {
                socket.send(byte);
                thread::sleep(SHORT / 10);
            }
        });
        assert_error(&mut client, 408);
        is_rejected.store(true, Ordering::Relaxed);
    });
    client
}

#[test]
fn head_that_arrives_slowly_returns_408() {
    let limits = Limits {
        head_timeout: SHORT,
        body_timeout: LONG,
        ..limits()
    };
    let server = start(limits, echo);
    let partial = send_partially(&server, &post(b"", 1000));
    trickle(&server, b"GET / HTTP/1.1\r\nHost: a\r\nA: ", b"a");
    // The timeout of the second head starts at its own first byte.
    let mut client = server.connect();
    client.send(&[&get("/", "")[..], b"GET /"].concat());
    assert_eq!(client.receive().status, 200);
    assert_error(&mut client, 408);
    assert_eq!(read(&server.stats.head_timeouts), 2);
    assert_eq!(read(&server.stats.body_timeouts), 0);
    drop(partial);
}

#[test]
fn body_that_arrives_slowly_returns_408() {
    let limits = Limits {
        head_timeout: LONG,
        body_timeout: SHORT,
        ..limits()
    };
    let server = start(limits, echo);
    let partial = send_partially(&server, b"GET / HT");
    trickle(&server, &post(b"", 1000), b"a");
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    trickle(&server, chunked, b"1\r\na\r\n");
    assert_eq!(read(&server.stats.body_timeouts), 2);
    assert_eq!(read(&server.stats.head_timeouts), 0);
    drop(partial);
}

#[test]
fn idle_connection_is_closed_without_a_response() {
    let limits = Limits {
        idle_timeout: SHORT,
        head_timeout: LONG,
        ..limits()
    };
    let server = start(limits, echo);
    let partial = send_partially(&server, b"GET / HT");
    let mut newcomer = server.connect();
    let mut answered = server.connect();
    answered.send(&get("/", ""));
    assert_eq!(answered.receive().status, 200);
    // Empty lines do not begin a request.
    answered.send(b"\r\n");
    assert!(newcomer.is_closed());
    assert!(answered.is_closed());
    assert_eq!(read(&server.stats.head_timeouts), 0);
    drop(partial);
}

#[test]
fn connection_whose_client_reads_no_response_is_closed() {
    let limits = Limits {
        workers: 1,
        write_timeout: SHORT,
        head_timeout: LONG,
        ..limits()
    };
    let large = |request: &Request| match request.raw_url() {
        "/large" => Response::from_data("text/plain", vec![b'x'; UNREADABLE_BYTES]),
        _ => Response::text("small"),
    };
    let server = start(limits, large);
    let partial = send_partially(&server, b"GET / HT");
    let mut deaf = server.connect();
    deaf.send(&get("/large", ""));
    // The only worker is free for others in the meantime.
    assert_eq!(ask(&server, &get("/", "")).text(), "small");
    wait_until("write timeout", || read(&server.stats.write_timeouts) == 1);
    wait_until("closed", || read(&server.stats.connections) == 1);
    assert_eq!(read(&server.stats.head_timeouts), 0);
    drop(partial);
}

#[test]
fn unread_responses_beyond_the_memory_limit_close_the_newest_connection() {
    let limits = Limits {
        max_buffered_bytes: UNREADABLE_BYTES,
        ..limits()
    };
    let large = |_: &Request| Response::from_data("text/plain", vec![b'x'; UNREADABLE_BYTES]);
    let server = start(limits, large);
    let mut first = server.connect();
    first.send(&get("/", ""));
    wait_until("unread", || read(&server.stats.buffered_bytes) > 0);
    let mut second = server.connect();
    second.send(&get("/", ""));
    wait_until("write timeout", || read(&server.stats.write_timeouts) == 1);
    assert_eq!(first.receive().body.len(), UNREADABLE_BYTES);
    wait_until("memory released", || {
        read(&server.stats.buffered_bytes) == 0
    });
    first.send(&get("/", ""));
    assert_eq!(first.receive().body.len(), UNREADABLE_BYTES);
}

#[test]
fn connections_beyond_the_limit_return_503_and_are_closed() {
    let limits = Limits {
        max_connections: 2,
        ..limits()
    };
    let server = start(limits, echo);
    let mut welcome: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for client in &mut welcome {
        client.send(&get("/", ""));
        assert_eq!(client.receive().status, 200);
    }
    // More than may linger at once.
    let mut refused: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in &mut refused {
        assert_error(client, 503);
    }
    assert_eq!(read(&server.stats.rejected_connections), 50);
    welcome[0].send(&get("/", ""));
    assert_eq!(welcome[0].receive().status, 200);
    drop(welcome);
    drop(refused);
    wait_until("a place", || ask(&server, &get("/", "")).status == 200);
}

#[test]
fn bodies_beyond_the_memory_limit_return_503_unless_small() {
    let limits = Limits {
        max_buffered_bytes: 85_000,
        ..limits()
    };
    let server = start(limits, echo);
    let held = [b'x'; 80_000];
    let mut slow = server.connect();
    slow.send(&post(&held, 80_001));
    wait_until("held", || read(&server.stats.buffered_bytes) >= 80_000);
    let mut large = server.connect();
    large.send(&post(&held, 80_001));
    assert_error(&mut large, 503);
    let mut small = server.connect();
    // Its body arrives after its head was parsed.
    small.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(small.receive().status, 100);
    small.send(&held[..10_000]);
    assert_eq!(small.receive().status, 200);
    slow.send(b"x");
    assert_eq!(slow.receive().status, 200);
    wait_until("memory released", || {
        read(&server.stats.buffered_bytes) == 0
    });
    assert_eq!(ask(&server, &post(&held, 80_000)).status, 200);
}

#[test]
fn connection_is_closed_immediately_after_its_last_response() {
    // Without shutdown(2) before close(2), about 1 in 4,000 is late if no other client wakes the workers.
    const CLIENTS: u64 = 4;
    const EACH: u64 = 12_500;
    let late = AtomicU64::new(0);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let late = &late;
            scope.spawn(move || {
                let answered = AtomicU64::new(0);
                let server = start(limits(), move |request| {
                    // Various durations, so that sometimes the close coincides with the other worker's epoll_wait.
                    let count = answered.fetch_add(1, Ordering::Relaxed);
                    let duration = Duration::from_micros(count * 7 % 400);
                    let begun = Instant::now();
                    while begun.elapsed() < duration {}
                    echo(request)
                });
                let request: &[u8] = match number % 2 {
                    0 => b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                    _ => b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
                };
                for _ in 0..EACH {
                    let mut client = server.connect();
                    client.send(request);
                    assert_eq!(client.receive().status, 200);
                    let timeout = Some(Duration::from_secs(1));
                    client.socket.set_read_timeout(timeout).unwrap();
                    if client.socket.read(&mut [0; 1]).is_err() {
                        late.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(late.into_inner(), 0);
}

/// The outcome of a request that was sent at the end of the idle timeout of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// The server had closed the connection before.
    Ended,
    Reset,
    /// The client's thread ran too late for the test.
    TooLate,
}

impl Outcome {
    const ALL: [Outcome; 4] = [
        Outcome::Answered,
        Outcome::Ended,
        Outcome::Reset,
        Outcome::TooLate,
    ];
}

fn send_at(client: &mut Client, moment: Instant) -> Outcome {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
    if moment.elapsed() > Duration::from_millis(300) {
        return Outcome::TooLate;
    }
    let mut buffer = [0; 4096];
    let sent = client.socket.write_all(&get("/", ""));
    match sent.and_then(|()| client.socket.read(&mut buffer)) {
        // After its FIN the server must not reset the connection.
        Ok(0) if client.socket.take_error().unwrap().is_none() => Outcome::Ended,
        Ok(0) => Outcome::Reset,
        Ok(_) => Outcome::Answered,
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing arrived"),
        Err(_) => Outcome::Reset,
    }
}

/// Opens connections, and sends a request on each at about the end of its idle timeout.
fn send_at_idle_timeouts(
    server: &TestServer,
    idle_timeout: Duration,
    connections: usize,
) -> Vec<Outcome> {
    const THREADS: usize = 20;
    let mut clients: Vec<_> = (0..connections).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&get("/", ""));
    }
    for client in &mut clients {
        assert_eq!(client.receive().status, 200);
    }
    // Their timeouts end within one or two ticks of the server.
    let end = Instant::now() + idle_timeout;
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .chunks_mut(connections / THREADS)
            .map(|clients| {
                scope.spawn(move || {
                    let step = Duration::from_millis(200) / u32::try_from(clients.len()).unwrap();
                    let mut moment = end - Duration::from_millis(100);
                    let outcomes = clients.iter_mut().map(|client| {
                        moment += step;
                        send_at(client, moment)
                    });
                    outcomes.collect::<Vec<_>>()
                })
            })
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join().unwrap());
        ended.flatten().collect()
    })
}

#[test]
fn request_that_arrives_at_the_end_of_the_idle_timeout_is_not_reset() {
    const CONNECTIONS: usize = 1_000;
    let limits = Limits {
        max_connections: 2 * CONNECTIONS,
        idle_timeout: Duration::from_secs(2),
        ..limits()
    };
    let server = start(limits, echo);
    let mut outcomes = Vec::new();
    let count =
        |outcomes: &[Outcome], outcome| outcomes.iter().filter(|other| **other == outcome).count();
    // A round in which most clients ran too late shows nothing.
    for _ in 0..10 {
        outcomes.extend(send_at_idle_timeouts(
            &server,
            limits.idle_timeout,
            CONNECTIONS,
        ));
        let in_time = outcomes.len() - count(&outcomes, Outcome::TooLate);
        if in_time >= CONNECTIONS / 2 && count(&outcomes, Outcome::Answered) > 0 {
            break;
        }
    }
    let counts = Outcome::ALL.map(|outcome| (outcome, count(&outcomes, outcome)));
    println!("{counts:?}");
    assert_eq!(count(&outcomes, Outcome::Reset), 0, "{counts:?}");
    assert!(count(&outcomes, Outcome::Answered) > 0, "{counts:?}");
    let in_time = outcomes.len() - count(&outcomes, Outcome::TooLate);
    assert!(in_time >= CONNECTIONS / 2, "{counts:?}");
}

#[test]
fn client_that_reads_after_sending_everything_receives_413() {
    const BYTES: usize = 10 << 20;
    let server = start(limits(), echo);
    let body = vec![b'x'; BYTES];
    for _ in 0..30 {
        let mut client = server.connect();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n");
        client.socket.write_all(head.as_bytes()).unwrap();
        client.socket.write_all(&body).unwrap();
        assert_error(&mut client, 413);
    }
}

#[test]
fn endless_rejected_uploads_do_not_block_a_worker() {
    let limits = Limits {
        workers: 1,
        ..limits()
    };
    let server = start(limits, echo);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = server.connect();
            let is_over = &is_over;
            scope.spawn(move || {
                client.send(
                    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
                );
                let mut sent = 0;
                while !is_over.load(Ordering::Relaxed) {
                    client.socket.write_all(&[b'x'; 65_536]).unwrap();
                    sent += 65_536;
                    thread::sleep(Duration::from_millis(2)); // so that less is sent than the server discards of one connection
                }
                assert!(sent > 8 << 20, "only {sent} bytes");
                assert_eq!(client.receive().status, 413);
            });
        }
        let mut other = server.connect();
        let begun = Instant::now();
        // Longer than the silence that the server tolerates.
        while begun.elapsed() < Duration::from_secs(4) {
            other.send(&get("/", ""));
            assert_eq!(other.receive().status, 200);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
