//! The stop: what was received is answered whole, nobody new is let in, and the end comes within its deadline.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed one is a failed test
#![allow(clippy::indexing_slicing)]
mod support;

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use movies_api::http::Limits;
use rouille::{Request, Response};
use support::{Client, Gate, PATIENCE, Running, echo, limits, serve, wait_until};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Ten times as long as a stop takes whose drain deadline is 300 ms, and a twentieth of [`patient`]'s deadline.
const LATE: Duration = Duration::from_secs(3);

/// As [`limits`], with a drain that no test has the time to wait out.
fn patient() -> Limits {
    Limits {
        drain_deadline: PATIENCE * 3,
        ..limits()
    }
}

/// Waits at the gate before each answer.
fn gated(gate: &Arc<Gate>) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
    let gate = Arc::clone(gate);
    move |_| {
        gate.pass();
        Response::text("late")
    }
}

fn wait_for_handlers(server: &Running, count: u64) {
    wait_until("handlers", || {
        server.counters.in_flight.load(Ordering::Relaxed) == count
    });
}

/// Whether nobody is let in any more.
fn is_shut(server: &Running) -> bool {
    TcpStream::connect(server.address).is_err()
}

/// Stops the server from another thread; what is done in the meantime is given back.
fn stop_beside<T>(server: &mut Running, meanwhile: impl FnOnce(&Running) -> T) -> T {
    server.stopper.stop();
    let done = meanwhile(server);
    server.stop();
    done
}

#[test]
fn under_load_every_request_that_was_taken_is_answered_whole_and_the_last_says_close() {
    const CLIENTS: usize = 100;
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let mut server = serve(patient(), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1)); // handlers take their time
        Response::from_data("text/plain", vec![b'x'; 200_000])
    });
    let answered = AtomicUsize::new(0);
    let last_ones = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (server, answered, last_ones) = (&server, &answered, &last_ones);
            scope.spawn(move || {
                let mut client = server.connect();
                'requests: loop {
                    // Some send ahead.
                    let ahead = 1 + number % 3;
                    client.send(&REQUEST.repeat(ahead));
                    for _ in 0..ahead {
                        // None of them may be torn, which `receive_for` sees to.
                        let Some(answer) = client.receive_for(false) else {
                            break 'requests;
                        };
                        assert_eq!((answer.status, answer.body.len()), (200, 200_000));
                        answered.fetch_add(1, Ordering::Relaxed);
                        if answer.closes() {
                            last_ones.fetch_add(1, Ordering::Relaxed);
                            assert!(client.is_closed());
                            break 'requests;
                        }
                    }
                }
            });
        }
        wait_until("load", || answered.load(Ordering::Relaxed) > 2 * CLIENTS);
        server.stopper.stop();
    });
    server.stop();
    assert_eq!(answered.into_inner(), taken.load(Ordering::Relaxed));
    // A client that pauses may be found idle instead.
    assert!(last_ones.into_inner() > CLIENTS / 2);
    assert!(is_shut(&server));
}

#[test]
fn what_handlers_are_at_and_what_waits_for_them_is_answered_and_nobody_new_let_in() {
    let gate = Gate::new();
    let mut server = serve(patient(), gated(&gate));
    let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(REQUEST);
    }
    wait_for_handlers(&server, 4);
    wait_until("queued", || {
        server.counters.queued.load(Ordering::Relaxed) == 2
    });
    stop_beside(&mut server, |server| {
        wait_until("shut", || is_shut(server));
        gate.open();
        for client in &mut clients {
            let answer = client.receive();
            assert_eq!((answer.text(), answer.closes()), ("late", true));
            assert!(client.is_closed());
        }
    });
}

#[test]
fn of_requests_sent_ahead_all_are_answered_and_only_the_last_says_close() {
    let gate = Gate::new();
    let mut server = serve(patient(), gated(&gate));
    let mut client = server.connect();
    client.send(&REQUEST.repeat(50));
    wait_for_handlers(&server, 1);
    let answers = stop_beside(&mut server, |server| {
        wait_until("shut", || is_shut(server));
        gate.open();
        client.receive_all()
    });
    let closing: Vec<_> = answers.iter().map(|answer| answer.closes()).collect();
    assert_eq!((closing.len(), closing[49]), (50, true));
    assert!(!closing[..49].contains(&true));
}

#[test]
fn a_client_that_never_ceases_to_send_ahead_is_told_to_close_all_the_same() {
    let limits = Limits {
        drain_deadline: Duration::from_secs(4),
        ..limits()
    };
    let mut server = serve(limits, echo);
    let mut client = server.connect();
    client.send(REQUEST);
    server.stopper.stop();
    loop {
        client.send(REQUEST);
        let answer = client.receive();
        if answer.closes() {
            break;
        }
    }
    assert!(client.is_closed());
    server.stop();
}

#[test]
fn idle_connections_are_closed_without_a_word_and_hold_up_nothing() {
    let mut server = serve(patient(), echo);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients[10..] {
        client.send(REQUEST);
        assert_eq!(client.receive().status, 200);
    }
    assert!(server.stop() < LATE);
    for client in &mut clients {
        assert!(client.is_closed());
    }
}

#[test]
fn a_request_whose_beginning_came_before_the_stop_is_answered() {
    let mut server = serve(patient(), echo);
    let mut client = server.connect();
    client.send(&REQUEST[..10]);
    let answer = stop_beside(&mut server, |server| {
        wait_until("shut", || is_shut(server));
        client.send(&REQUEST[10..]);
        client.receive()
    });
    assert_eq!((answer.status, answer.closes()), (200, true));
}

#[test]
fn the_end_comes_within_its_deadline_whatever_hangs() {
    let gate = Gate::new();
    let limits = Limits {
        drain_deadline: Duration::from_millis(300),
        // Nothing else ends what hangs.
        head_deadline: PATIENCE * 3,
        body_deadline: PATIENCE * 3,
        write_deadline: PATIENCE * 3,
        request_timeout: PATIENCE * 3,
        ..limits()
    };
    let mut server = serve(limits, {
        let stuck = gated(&gate);
        move |request: &Request| match request.raw_url() {
            "/large" => Response::from_data("text/plain", vec![b'x'; 16 << 20]),
            _ => stuck(request),
        }
    });
    let beginnings: [&[u8]; 4] = [
        b"GET / HT",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nb",
        b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
        REQUEST,
    ];
    let clients = beginnings.map(|beginning| {
        let mut client = server.connect();
        client.send(beginning);
        client
    });
    wait_for_handlers(&server, 1);
    assert!(server.stop() < LATE);
    assert!(is_shut(&server));
    gate.open();
    drop::<[Client; 4]>(clients);
}
