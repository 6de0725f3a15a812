//! Handlers that hang, panic or are too slow for all who ask, and clients that are slow: what happens to the others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed one is a failed test
#![allow(clippy::indexing_slicing)]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::Duration;

use movies_api::server::Limits;
use rouille::{Request, Response};
use support::{Client, Gate, limits, serve, wait_until};

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

/// Answers what it was asked; under /stuck, only once the gate is open.
fn stuck_behind(gate: &Arc<Gate>) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
    let gate = Arc::clone(gate);
    move |request| {
        if request.raw_url().starts_with("/stuck") {
            gate.pass();
        }
        Response::text(request.raw_url().to_owned())
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn check_unavailable(client: &mut Client) {
    let answer = client.receive();
    assert_eq!((answer.status, answer.closes()), (503, true));
    assert_eq!(answer.header("Retry-After"), Some("1"));
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert!(client.is_closed());
}

#[test]
fn a_handler_past_its_deadline_is_503_and_its_late_answer_reaches_nobody() {
    let gate = Gate::new();
    let limits = Limits {
        workers: 2,
        handler_deadline: Duration::from_millis(200),
        ..limits()
    };
    let server = serve(limits, stuck_behind(&gate));
    let mut late = server.connect();
    late.send(&get("/stuck"));
    check_unavailable(&mut late);
    drop(late);
    wait_until("closed", || read(&server.counters.connections) == 0);
    // This one has the place in the table that the late answer was for.
    let mut next = server.connect();
    next.send(&get("/1"));
    assert_eq!(next.receive().text(), "/1");
    gate.open();
    wait_until("the handler's end", || {
        read(&server.counters.in_flight) == 0
    });
    next.send(&get("/2"));
    assert_eq!(next.receive().text(), "/2");
    assert_eq!(read(&server.counters.handler_timeouts), 1);
}

/// What was logged by anybody in this process.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let line = format!("{} {}", record.level(), record.args());
        LOGGED.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

#[test]
fn a_panic_in_a_handler_is_a_logged_500_in_json_and_its_worker_lives_on() {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Error);
    });
    let limits = Limits {
        workers: 1,
        ..limits()
    };
    let server = serve(limits, |request| match request.raw_url() {
        "/good" => Response::text("good"),
        _ => panic!("on purpose"),
    });
    let mut client = server.connect();
    for _ in 0..5 {
        client.send(&get("/bad%0A"));
        let answer = client.receive();
        assert_eq!(
            (answer.status, answer.text()),
            (500, r#"{"detail":"Internal server error."}"#)
        );
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        client.send(&get("/good"));
        assert_eq!(client.receive().text(), "good");
    }
    assert_eq!(read(&server.counters.panics), 5);
    let logged = LOGGED.lock().unwrap();
    let wanted = r#"ERROR a handler panicked: GET "/bad%0A""#;
    assert_eq!(logged.iter().filter(|line| *line == wanted).count(), 5);
}

/// Clients whose requests wait for a handler, in their order.
fn queue_up(server: &support::Running, count: u64) -> Vec<Client> {
    let waiting = (0..count).map(|place| {
        let mut client = server.connect();
        client.send(&get(&format!("/{place}")));
        wait_until("queued", || read(&server.counters.queued) > place);
        client
    });
    waiting.collect()
}

#[test]
fn requests_that_wait_too_long_are_shed_from_the_newest() {
    let gate = Gate::new();
    let limits = Limits {
        workers: 1,
        ..limits()
    };
    let server = serve(limits, stuck_behind(&gate));
    let mut stuck = server.connect();
    stuck.send(&get("/stuck"));
    wait_until("stuck", || read(&server.counters.in_flight) == 1);
    let mut waiting = queue_up(&server, 4);
    for client in &mut waiting[1..] {
        check_unavailable(client);
    }
    // Nor does it help to come now.
    let mut newcomer = server.connect();
    newcomer.send(&get("/new"));
    check_unavailable(&mut newcomer);
    gate.open();
    assert_eq!(stuck.receive().text(), "/stuck");
    assert_eq!(waiting[0].receive().text(), "/0");
    assert_eq!(read(&server.counters.shed), 4);
}

#[test]
fn a_request_is_shed_in_the_end_even_if_it_is_the_oldest() {
    let gate = Gate::new();
    let limits = Limits {
        workers: 1,
        shed_after: Duration::from_millis(50),
        ..limits()
    };
    let server = serve(limits, stuck_behind(&gate));
    let mut stuck = server.connect();
    stuck.send(&get("/stuck"));
    wait_until("stuck", || read(&server.counters.in_flight) == 1);
    let mut waiting = server.connect();
    waiting.send(&get("/1"));
    check_unavailable(&mut waiting);
    gate.open();
    assert_eq!(stuck.receive().text(), "/stuck");
}

#[test]
fn however_many_wait_they_are_answered_if_it_is_not_for_long() {
    let gate = Gate::new();
    let limits = Limits {
        workers: 1,
        shed_after: support::PATIENCE,
        ..limits()
    };
    let server = serve(limits, stuck_behind(&gate));
    let mut stuck = server.connect();
    stuck.send(&get("/stuck"));
    wait_until("stuck", || read(&server.counters.in_flight) == 1);
    let mut waiting = queue_up(&server, 300);
    gate.open();
    for (place, client) in waiting.iter_mut().enumerate() {
        assert_eq!(client.receive().text(), format!("/{place}"));
    }
}

#[test]
fn handlers_that_wait_all_begin_beside_each_other() {
    let gate = Gate::new();
    // More than the cores have quick ones of at once, and no event comes to tell anybody of those that wait.
    let count = 16 * thread::available_parallelism().unwrap().get();
    let limits = Limits {
        workers: count,
        shed_after: Duration::from_secs(60),
        ..limits()
    };
    let server = serve(limits, stuck_behind(&gate));
    let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&get("/stuck"));
    }
    wait_until("all to begin", || {
        read(&server.counters.in_flight) == count as u64
    });
    gate.open();
    for client in &mut clients {
        assert_eq!(client.receive().status, 200);
    }
}

#[test]
fn costly_handlers_that_hang_leave_workers_for_all_others() {
    let gate = Gate::new();
    let limits = Limits {
        costly: 2,
        shed_after: Duration::from_secs(60),
        ..limits()
    };
    let server = serve(limits, stuck_behind(&gate));
    let mut costly: Vec<Client> = (0..2 * limits.workers).map(|_| server.connect()).collect();
    for client in &mut costly {
        client.send(&get("/stuck/costly"));
    }
    let waiting = costly.len() as u64 - 2;
    wait_until("as many as may to hang", || {
        read(&server.counters.queued) == waiting && read(&server.counters.in_flight) == 2
    });
    let mut other = server.connect();
    for number in 0..100 {
        other.send(&get(&format!("/{number}")));
        assert_eq!(other.receive().text(), format!("/{number}"));
    }
    assert_eq!(read(&server.counters.queued), waiting);
    gate.open();
    for client in &mut costly {
        assert_eq!(client.receive().text(), "/stuck/costly");
    }
}

#[test]
fn the_liveness_path_is_answered_while_every_worker_is_stuck() {
    let gate = Gate::new();
    let server = serve(limits(), stuck_behind(&gate));
    let mut stuck: Vec<_> = (0..limits().workers).map(|_| server.connect()).collect();
    for client in &mut stuck {
        client.send(&get("/stuck"));
    }
    wait_until("stuck", || read(&server.counters.in_flight) == 4);
    let mut probe = server.connect();
    for _ in 0..100 {
        probe.send(&get("/alive?now"));
        assert_eq!(probe.receive().text(), "alive");
    }
    probe.send(b"HEAD /alive HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(probe.receive_for(true).unwrap().status, 200);
    gate.open();
    for client in &mut stuck {
        assert_eq!(client.receive().text(), "/stuck");
    }
}

#[test]
fn slow_clients_of_every_kind_hold_up_nobody_and_are_cut() {
    const EACH: usize = 50;
    let limits = Limits {
        workers: 2,
        head_deadline: Duration::from_secs(2),
        body_deadline: Duration::from_secs(2),
        write_deadline: Duration::from_secs(2),
        ..limits()
    };
    let server = serve(limits, |request| match request.raw_url() {
        "/large" => Response::from_data("text/plain", vec![b'x'; 8 << 20]),
        _ => Response::text("quick"),
    });
    let slow_body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbo";
    let kinds: [&[u8]; 4] = [b"GET / HT", slow_body, b"", &get("/large").repeat(20)];
    let mut slow = Vec::new();
    for kind in kinds {
        // So much is not taken of one answer that few of them could wait.
        let count = if kind.len() > 100 { 3 } else { EACH };
        slow.extend((0..count).map(|_| {
            let mut client = server.connect();
            client.send(kind);
            client
        }));
    }
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut ordinary = server.connect();
                while read(&server.counters.cut_writes) < 3 {
                    ordinary.send(&get("/"));
                    assert_eq!(ordinary.receive().text(), "quick");
                }
            });
        }
    });
    let each = u64::try_from(EACH).unwrap();
    wait_until("cut heads", || read(&server.counters.cut_heads) == each);
    wait_until("cut bodies", || read(&server.counters.cut_bodies) == each);
    // The silent ones have more time.
    wait_until("the others' end", || {
        read(&server.counters.connections) == each
    });
}
