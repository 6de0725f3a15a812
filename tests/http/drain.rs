//! Graceful shutdown: requests that arrived are answered completely, no connection is accepted, and the drain ends within
//! its timeout.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Client, Gate, TEST_TIMEOUT, TestServer, echo, limits, start, wait_until};
use movies_api::http::Limits;
use rouille::{Request, Response};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Ten times the drain timeout of the test that uses it, and a twentieth of that of [`with_long_drain`].
const LATE: Duration = Duration::from_secs(3);

/// [`limits`] with a drain timeout that no test waits for.
fn with_long_drain() -> Limits {
    Limits {
        drain_timeout: TEST_TIMEOUT * 3,
        ..limits()
    }
}

/// Returns a handler that waits at the gate.
fn blocked_by(gate: &Arc<Gate>) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
    let gate = Arc::clone(gate);
    move |_| {
        gate.pass();
        Response::text("late")
    }
}

fn wait_for_handlers(server: &TestServer, count: u64) {
    wait_until("handlers", || {
        server.stats.in_flight.load(Ordering::Relaxed) == count
    });
}

/// Whether the server no longer listens.
fn refuses_connections(server: &TestServer) -> bool {
    TcpStream::connect(server.address).is_err()
}

/// Begins the shutdown, calls `meanwhile`, and waits for the end of the server.
fn shut_down_during<T>(server: &mut TestServer, meanwhile: impl FnOnce(&TestServer) -> T) -> T {
    server.shutdown_handle.shut_down();
    let done = meanwhile(server);
    server.stop();
    done
}

#[test]
fn under_load_every_handled_request_is_answered_completely_and_the_last_closes() {
    const CLIENTS: usize = 100;
    let handled = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&handled);
    let mut server = start(with_long_drain(), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1)); // so that requests queue
        Response::from_data("text/plain", vec![b'x'; 200_000])
    });
    let answered = AtomicUsize::new(0);
    let closing = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (server, answered, closing) = (&server, &answered, &closing);
            scope.spawn(move || {
                let mut client = server.connect();
                'requests: loop {
                    // Some pipeline.
                    let count = 1 + number % 3;
                    client.send(&REQUEST.repeat(count));
                    for _ in 0..count {
                        // `receive_for` fails on an incomplete response.
                        let Some(response) = client.receive_for(false) else {
                            break 'requests;
                        };
                        assert_eq!((response.status, response.body.len()), (200, 200_000));
                        answered.fetch_add(1, Ordering::Relaxed);
                        if response.closes() {
                            closing.fetch_add(1, Ordering::Relaxed);
                            assert!(client.is_closed());
                            break 'requests;
                        }
                    }
                }
            });
        }
        wait_until("load", || answered.load(Ordering::Relaxed) > 2 * CLIENTS);
        server.shutdown_handle.shut_down();
    });
    server.stop();
    assert_eq!(answered.into_inner(), handled.load(Ordering::Relaxed));
    // The connection of a client that pauses may be closed while it is idle.
    assert!(closing.into_inner() > CLIENTS / 2);
    assert!(refuses_connections(&server));
}

#[test]
fn running_and_queued_requests_are_answered_and_no_connection_is_accepted() {
    let gate = Gate::new();
    let mut server = start(with_long_drain(), blocked_by(&gate));
    let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(REQUEST);
    }
    wait_for_handlers(&server, 4);
    wait_until("queued", || {
        server.stats.queued.load(Ordering::Relaxed) == 2
    });
    shut_down_during(&mut server, |server| {
        wait_until("listening ends", || refuses_connections(server));
        gate.open();
        for client in &mut clients {
            let response = client.receive();
            assert_eq!((response.text(), response.closes()), ("late", true));
            assert!(client.is_closed());
        }
    });
}

#[test]
fn all_pipelined_requests_are_answered_and_only_the_last_closes() {
    let gate = Gate::new();
    let mut server = start(with_long_drain(), blocked_by(&gate));
    let mut client = server.connect();
    client.send(&REQUEST.repeat(50));
    wait_for_handlers(&server, 1);
    let responses = shut_down_during(&mut server, |server| {
        wait_until("listening ends", || refuses_connections(server));
        gate.open();
        client.receive_all()
    });
    let closing: Vec<_> = responses.iter().map(|response| response.closes()).collect();
    assert_eq!((closing.len(), closing[49]), (50, true));
    assert!(!closing[..49].contains(&true));
}

#[test]
fn endless_pipelining_is_ended_by_connection_close() {
    let limits = Limits {
        drain_timeout: Duration::from_secs(4),
        ..limits()
    };
    let mut server = start(limits, echo);
    let mut client = server.connect();
    client.send(REQUEST);
    server.shutdown_handle.shut_down();
    loop {
        client.send(REQUEST);
        let response = client.receive();
        if response.closes() {
            break;
        }
    }
    assert!(client.is_closed());
    server.stop();
}

#[test]
fn idle_connections_are_closed_and_do_not_delay_shutdown() {
    let mut server = start(with_long_drain(), echo);
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
fn request_that_began_before_shutdown_is_answered() {
    let mut server = start(with_long_drain(), echo);
    let mut client = server.connect();
    client.send(&REQUEST[..10]);
    let response = shut_down_during(&mut server, |server| {
        wait_until("listening ends", || refuses_connections(server));
        client.send(&REQUEST[10..]);
        client.receive()
    });
    assert_eq!((response.status, response.closes()), (200, true));
}

#[test]
fn drain_ends_within_its_timeout_whatever_hangs() {
    let gate = Gate::new();
    let limits = Limits {
        drain_timeout: Duration::from_millis(300),
        // No other timeout ends the requests.
        head_timeout: TEST_TIMEOUT * 3,
        body_timeout: TEST_TIMEOUT * 3,
        write_timeout: TEST_TIMEOUT * 3,
        request_timeout: TEST_TIMEOUT * 3,
        ..limits()
    };
    let mut server = start(limits, {
        let stuck = blocked_by(&gate);
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
    assert!(refuses_connections(&server));
    gate.open();
    drop::<[Client; 4]>(clients);
}
