//! The bounds of one client: how large a request may be and how long it may take, and what all clients share:
//! connections and memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed one is a failed test
#![allow(clippy::indexing_slicing)]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use movies_api::http::Limits;
use rouille::{Request, Response};
use support::{Answer, Client, PATIENCE, Running, echo, limits, serve, wait_until};

const SHORT: Duration = Duration::from_millis(300);

/// A deadline that has to be later than `SHORT` on the slowest machine, and is that of a client beside.
const LONG: Duration = Duration::from_secs(4);

/// More than the system takes for a client that reads nothing.
const UNREADABLE_BYTES: usize = 32 << 20;

fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

/// A head of exactly so many bytes.
fn head_of(bytes: usize) -> Vec<u8> {
    let padding = bytes - get("/", "A: \r\n").len();
    get("/", &format!("A: {}\r\n", "x".repeat(padding)))
}

fn post(body: &[u8], announced_bytes: usize) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {announced_bytes}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn ask(server: &Running, sent: &[u8]) -> Answer {
    let mut client = server.connect();
    client.send(sent);
    client.receive()
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// The server's own refusal: in JSON, and the last answer of its connection.
fn check_refusal(client: &mut Client, status: u16) -> Answer {
    let answer = client.receive();
    assert_eq!((answer.status, answer.closes()), (status, true));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(body["detail"].is_string(), "{body}");
    let is_for_later = answer.header("Retry-After").is_some();
    assert_eq!(is_for_later, status == 503);
    assert!(client.is_closed());
    answer
}

#[test]
fn a_head_may_have_16_kib_and_100_fields_and_a_target_8_kib() {
    let server = serve(limits(), echo);
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
fn a_head_or_a_target_without_end_is_refused_at_its_limit() {
    let server = serve(limits(), echo);
    for (beginning, status) in [
        (&b"GET /"[..], 414),
        (b"GET", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: ", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA", 431),
    ] {
        let mut client = server.connect();
        client.send(beginning);
        client.send(&[b'a'; 17 * 1024]);
        check_refusal(&mut client, status);
    }
}

#[test]
fn a_length_past_the_limit_is_413_before_any_of_the_body_came() {
    let server = serve(limits(), echo);
    let mib = 1024 * 1024;
    assert_eq!(ask(&server, &post(&vec![b'x'; mib], mib)).status, 200);
    let mut client = server.connect();
    client.send(&post(b"", mib + 1));
    check_refusal(&mut client, 413);
}

#[test]
fn a_chunk_past_the_limit_is_413_as_soon_as_its_size_is_there() {
    let limits = Limits {
        body_bytes: 100,
        ..limits()
    };
    let server = serve(limits, echo);
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
    check_refusal(&mut client, 413);
}

#[test]
fn a_refusal_of_a_head_request_has_no_body_rfc_9110_9_3_2() {
    let server = serve(limits(), echo);
    for sent in [
        &b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"[..],
        b"\r\nHEAD / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx",
    ] {
        let mut client = server.connect();
        client.send(sent);
        let answer = client.receive_for(true).unwrap();
        assert!(answer.status >= 400 && answer.header("Content-Length").is_some());
        assert!(client.is_closed(), "{}", sent.escape_ascii());
    }
}

/// A client whose request's head or body never comes to its end. Where that part's time is [`LONG`], the server cuts it
/// only then: what has to happen within [`SHORT`], after this client began, happens before.
fn begin_and_stop(server: &Running, beginning: &[u8]) -> Client {
    let mut client = server.connect();
    client.send(beginning);
    client
}

/// Sends the beginning and then byte after byte, until the server refuses; each byte alone would be in time.
fn trickle(server: &Running, beginning: &[u8], byte: &[u8]) -> Client {
    let mut client = server.connect();
    let is_refused = AtomicBool::new(false);
    let mut socket = client.share();
    thread::scope(|scope| {
        scope.spawn(|| {
            socket.send(beginning);
            let begun = Instant::now();
            while !is_refused.load(Ordering::Relaxed) && begun.elapsed() < PATIENCE * 2 {
                socket.send(byte);
                thread::sleep(SHORT / 10);
            }
        });
        check_refusal(&mut client, 408);
        is_refused.store(true, Ordering::Relaxed);
    });
    client
}

#[test]
fn a_head_is_408_when_its_time_is_over_however_steadily_it_comes() {
    let limits = Limits {
        head_deadline: SHORT,
        body_deadline: LONG,
        ..limits()
    };
    let server = serve(limits, echo);
    let beside = begin_and_stop(&server, &post(b"", 1000));
    trickle(&server, b"GET / HTTP/1.1\r\nHost: a\r\nA: ", b"a");
    // The time of a second request's head begins with its own first byte.
    let mut client = server.connect();
    client.send(&[&get("/", "")[..], b"GET /"].concat());
    assert_eq!(client.receive().status, 200);
    check_refusal(&mut client, 408);
    assert_eq!(read(&server.counters.cut_heads), 2);
    assert_eq!(read(&server.counters.cut_bodies), 0);
    drop(beside);
}

#[test]
fn a_body_is_408_when_its_time_is_over_however_steadily_it_comes() {
    let limits = Limits {
        head_deadline: LONG,
        body_deadline: SHORT,
        ..limits()
    };
    let server = serve(limits, echo);
    let beside = begin_and_stop(&server, b"GET / HT");
    trickle(&server, &post(b"", 1000), b"a");
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    trickle(&server, chunked, b"1\r\na\r\n");
    assert_eq!(read(&server.counters.cut_bodies), 2);
    assert_eq!(read(&server.counters.cut_heads), 0);
    drop(beside);
}

#[test]
fn a_connection_that_is_silent_too_long_is_closed_without_a_word() {
    let limits = Limits {
        idle_deadline: SHORT,
        head_deadline: LONG,
        ..limits()
    };
    let server = serve(limits, echo);
    let beside = begin_and_stop(&server, b"GET / HT");
    let mut newcomer = server.connect();
    let mut answered = server.connect();
    answered.send(&get("/", ""));
    assert_eq!(answered.receive().status, 200);
    // Empty lines are no beginning of a request.
    answered.send(b"\r\n");
    assert!(newcomer.is_closed());
    assert!(answered.is_closed());
    assert_eq!(read(&server.counters.cut_heads), 0);
    drop(beside);
}

#[test]
fn a_client_that_never_reads_its_answer_is_cut() {
    let limits = Limits {
        workers: 1,
        write_deadline: SHORT,
        head_deadline: LONG,
        ..limits()
    };
    let large = |request: &Request| match request.raw_url() {
        "/large" => Response::from_data("text/plain", vec![b'x'; UNREADABLE_BYTES]),
        _ => Response::text("small"),
    };
    let server = serve(limits, large);
    let beside = begin_and_stop(&server, b"GET / HT");
    let mut deaf = server.connect();
    deaf.send(&get("/large", ""));
    // Its only worker is free for others in the meantime.
    assert_eq!(ask(&server, &get("/", "")).text(), "small");
    wait_until("cut", || read(&server.counters.cut_writes) == 1);
    wait_until("closed", || read(&server.counters.connections) == 1);
    assert_eq!(read(&server.counters.cut_heads), 0);
    drop(beside);
}

#[test]
fn answers_that_are_not_taken_share_a_memory_past_which_the_newest_is_cut() {
    let limits = Limits {
        bodies_bytes: UNREADABLE_BYTES,
        ..limits()
    };
    let large = |_: &Request| Response::from_data("text/plain", vec![b'x'; UNREADABLE_BYTES]);
    let server = serve(limits, large);
    let mut first = server.connect();
    first.send(&get("/", ""));
    wait_until("untaken", || read(&server.counters.body_bytes) > 0);
    let mut second = server.connect();
    second.send(&get("/", ""));
    wait_until("cut", || read(&server.counters.cut_writes) == 1);
    assert_eq!(first.receive().body.len(), UNREADABLE_BYTES);
    wait_until("given back", || read(&server.counters.body_bytes) == 0);
    first.send(&get("/", ""));
    assert_eq!(first.receive().body.len(), UNREADABLE_BYTES);
}

#[test]
fn past_the_limit_of_connections_newcomers_are_told_and_closed() {
    let limits = Limits {
        connections: 2,
        ..limits()
    };
    let server = serve(limits, echo);
    let mut welcome: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for client in &mut welcome {
        client.send(&get("/", ""));
        assert_eq!(client.receive().status, 200);
    }
    // More than are let linger at once.
    let mut refused: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in &mut refused {
        check_refusal(client, 503);
    }
    assert_eq!(read(&server.counters.refused), 50);
    welcome[0].send(&get("/", ""));
    assert_eq!(welcome[0].receive().status, 200);
    drop(welcome);
    drop(refused);
    wait_until("a place", || ask(&server, &get("/", "")).status == 200);
}

#[test]
fn past_the_memory_of_all_bodies_large_ones_are_503_and_small_ones_pass() {
    let limits = Limits {
        bodies_bytes: 85_000,
        ..limits()
    };
    let server = serve(limits, echo);
    let held = [b'x'; 80_000];
    let mut slow = server.connect();
    slow.send(&post(&held, 80_001));
    wait_until("held", || read(&server.counters.body_bytes) >= 80_000);
    let mut large = server.connect();
    large.send(&post(&held, 80_001));
    check_refusal(&mut large, 503);
    let mut small = server.connect();
    // Its body comes after its head has been read.
    small.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(small.receive().status, 100);
    small.send(&held[..10_000]);
    assert_eq!(small.receive().status, 200);
    slow.send(b"x");
    assert_eq!(slow.receive().status, 200);
    wait_until("given back", || read(&server.counters.body_bytes) == 0);
    assert_eq!(ask(&server, &post(&held, 80_000)).status, 200);
}

#[test]
fn a_connection_that_ends_with_its_answer_is_closed_at_once() {
    // Without the shutdown before the close about 1 in 4,000 is late, where no other client wakes the workers.
    const CLIENTS: u64 = 4;
    const EACH: u64 = 12_500;
    let late = AtomicU64::new(0);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let late = &late;
            scope.spawn(move || {
                let answered = AtomicU64::new(0);
                let server = serve(limits(), move |request| {
                    // Many durations, so that now and then the close meets the other worker's look at the socket.
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

/// What became of a request that was sent as its connection's idle time ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// The server had ended the connection before, and said so.
    Ended,
    Reset,
    /// The client had no time on a core before the connection was long gone.
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
    let mut room = [0; 4096];
    let sent = client.socket.write_all(&get("/", ""));
    match sent.and_then(|()| client.socket.read(&mut room)) {
        // After its FIN the server may not reset what was under way.
        Ok(0) if client.socket.take_error().unwrap().is_none() => Outcome::Ended,
        Ok(0) => Outcome::Reset,
        Ok(_) => Outcome::Answered,
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing came"),
        Err(_) => Outcome::Reset,
    }
}

/// Opens connections, and sends a request on each at about the moment at which its idle time ends.
fn meet_idle_ends(server: &Running, idle_deadline: Duration, connections: usize) -> Vec<Outcome> {
    const THREADS: usize = 20;
    let mut clients: Vec<_> = (0..connections).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&get("/", ""));
    }
    for client in &mut clients {
        assert_eq!(client.receive().status, 200);
    }
    // Their times end within one tick or two.
    let end = Instant::now() + idle_deadline;
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
fn a_request_that_arrives_as_its_connection_s_idle_time_ends_is_not_reset() {
    const CONNECTIONS: usize = 1_000;
    let limits = Limits {
        connections: 2 * CONNECTIONS,
        idle_deadline: Duration::from_secs(2),
        ..limits()
    };
    let server = serve(limits, echo);
    let mut outcomes = Vec::new();
    let count =
        |outcomes: &[Outcome], outcome| outcomes.iter().filter(|other| **other == outcome).count();
    // A round in which most clients had no core in time shows nothing.
    for _ in 0..10 {
        outcomes.extend(meet_idle_ends(&server, limits.idle_deadline, CONNECTIONS));
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
fn a_client_that_reads_only_after_writing_all_sees_its_413() {
    const BYTES: usize = 10 << 20;
    let server = serve(limits(), echo);
    let body = vec![b'x'; BYTES];
    for _ in 0..30 {
        let mut client = server.connect();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n");
        client.socket.write_all(head.as_bytes()).unwrap();
        client.socket.write_all(&body).unwrap();
        check_refusal(&mut client, 413);
    }
}

#[test]
fn refused_uploads_that_never_cease_hold_no_worker() {
    let limits = Limits {
        workers: 1,
        ..limits()
    };
    let server = serve(limits, echo);
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
                    thread::sleep(Duration::from_millis(2)); // less than the server drops of one connection at most
                }
                assert!(sent > 8 << 20, "only {sent} bytes");
                assert_eq!(client.receive().status, 413);
            });
        }
        let mut other = server.connect();
        let begun = Instant::now();
        // Longer than silence would be let last.
        while begun.elapsed() < Duration::from_secs(4) {
            other.send(&get("/", ""));
            assert_eq!(other.receive().status, 200);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
