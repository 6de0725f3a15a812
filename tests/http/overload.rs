//! Handlers that block, panic or are too slow for the load, and slow clients: what happens to other requests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Client, Gate, TEST_TIMEOUT, TestServer, limits, start, start_with_deadline, wait_until,
};
use movies_api::http::{ClassLimits, Limits};
use rouille::{Request, Response};

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

/// The `head_timeout` of tests that measure time by a client of [`send_partial_head`].
const LONG: Duration = Duration::from_secs(4);

/// Limits under which no request is shed or expires while a test waits.
fn without_shedding() -> Limits {
    let class = |limits: ClassLimits| ClassLimits {
        shed_after: TEST_TIMEOUT * 3,
        ..limits
    };
    let defaults = limits();
    Limits {
        ordinary: class(defaults.ordinary),
        heavy: class(defaults.heavy),
        write: class(defaults.write),
        sign_in: class(defaults.sign_in),
        queue_timeout: TEST_TIMEOUT * 3,
        request_timeout: TEST_TIMEOUT * 3,
        ..defaults
    }
}

/// Returns a handler that responds with the target of the request; under /stuck, only once the gate is open.
fn stuck_behind(gate: &Arc<Gate>) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
    let gate = Arc::clone(gate);
    move |request| {
        if request.raw_url().starts_with("/stuck") {
            gate.pass();
        }
        Response::text(request.raw_url().to_owned())
    }
}

/// Connects a client whose head is never complete, so that it times out after [`LONG`]. What must happen sooner happens while
/// `head_timeouts` is 0; on a slow machine both are late.
fn send_partial_head(server: &TestServer) -> Client {
    let mut client = server.connect();
    client.send(b"GET / HT");
    client
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn assert_503(client: &mut Client) {
    let response = client.receive();
    assert_eq!((response.status, response.closes()), (503, true));
    assert_eq!(response.header("Retry-After"), Some("1"));
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    assert!(client.is_closed());
}

#[test]
fn handler_that_misses_its_deadline_delays_only_its_own_connection() {
    let gate = Gate::new();
    let request_timeout = Duration::from_millis(200);
    let limits = Limits {
        workers: 2,
        request_timeout,
        ..limits()
    };
    let server = start(limits, stuck_behind(&gate));
    let mut late = server.connect();
    late.send(&get("/stuck"));
    let mut other = server.connect();
    let sent = Instant::now();
    // The server acts on deadlines every 100 ms.
    while sent.elapsed() < request_timeout * 3 {
        other.send(&get("/other"));
        assert_eq!(other.receive().text(), "/other");
    }
    gate.open();
    assert_eq!(late.receive().text(), "/stuck");
    assert_eq!(read(&server.stats.handler_timeouts), 1);
    late.send(&get("/next"));
    assert_eq!(late.receive().text(), "/next");
    assert_eq!(read(&server.stats.handler_timeouts), 1);
}

/// What any thread of this process has logged.
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
fn handler_panic_returns_500_is_logged_and_keeps_the_worker() {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Error);
    });
    let limits = Limits {
        workers: 1,
        ..limits()
    };
    let server = start(limits, |request| match request.raw_url() {
        "/good" => Response::text("good"),
        _ => panic!("on purpose"),
    });
    let mut client = server.connect();
    for _ in 0..5 {
        client.send(&get("/bad%0A"));
        let response = client.receive();
        assert_eq!(
            (response.status, response.text()),
            (500, r#"{"detail":"Internal server error."}"#)
        );
        assert_eq!(response.header("Content-Type"), Some("application/json"));
        client.send(&get("/good"));
        assert_eq!(client.receive().text(), "good");
    }
    assert_eq!(read(&server.stats.handler_panics), 5);
    let logged = LOGGED.lock().unwrap();
    let wanted = r#"ERROR a handler panicked: GET "/bad%0A""#;
    assert_eq!(logged.iter().filter(|line| *line == wanted).count(), 5);
}

/// Connects clients whose requests are queued in their order.
fn queue_up(server: &TestServer, count: u64) -> Vec<Client> {
    let waiting = (0..count).map(|place| {
        let mut client = server.connect();
        client.send(&get(&format!("/{place}")));
        wait_until("queued", || read(&server.stats.queued) > place);
        client
    });
    waiting.collect()
}

#[test]
fn requests_that_wait_too_long_are_shed_newest_first() {
    let gate = Gate::new();
    let limits = Limits {
        workers: 1,
        ..limits()
    };
    let server = start(limits, stuck_behind(&gate));
    let mut stuck = server.connect();
    stuck.send(&get("/stuck"));
    wait_until("stuck", || read(&server.stats.in_flight) == 1);
    let mut waiting = queue_up(&server, 4);
    for client in &mut waiting[1..] {
        assert_503(client);
    }
    // A new request is shed at once.
    let mut newcomer = server.connect();
    newcomer.send(&get("/new"));
    assert_503(&mut newcomer);
    gate.open();
    assert_eq!(stuck.receive().text(), "/stuck");
    assert_eq!(waiting[0].receive().text(), "/0");
    assert_eq!(read(&server.stats.shed), 4);
}

#[test]
fn oldest_request_is_shed_after_the_queue_timeout() {
    let gate = Gate::new();
    let limits = Limits {
        workers: 1,
        queue_timeout: Duration::from_millis(250),
        head_timeout: LONG,
        ..limits()
    };
    let server = start(limits, stuck_behind(&gate));
    let partial = send_partial_head(&server);
    let mut stuck = server.connect();
    stuck.send(&get("/stuck"));
    wait_until("stuck", || read(&server.stats.in_flight) == 1);
    let mut waiting = server.connect();
    waiting.send(&get("/1"));
    assert_503(&mut waiting);
    assert_eq!(read(&server.stats.head_timeouts), 0);
    drop(partial);
    gate.open();
    assert_eq!(stuck.receive().text(), "/stuck");
}

#[test]
fn long_queue_is_answered_if_the_wait_is_short() {
    let gate = Gate::new();
    let limits = Limits {
        workers: 1,
        ..without_shedding()
    };
    let server = start(limits, stuck_behind(&gate));
    let mut stuck = server.connect();
    stuck.send(&get("/stuck"));
    wait_until("stuck", || read(&server.stats.in_flight) == 1);
    let mut waiting = queue_up(&server, 300);
    gate.open();
    for (place, client) in waiting.iter_mut().enumerate() {
        assert_eq!(client.receive().text(), format!("/{place}"));
    }
}

#[test]
fn blocked_handlers_do_not_prevent_others_from_starting() {
    let gate = Gate::new();
    let count = 16 * thread::available_parallelism().unwrap().get();
    let limits = Limits {
        workers: count,
        head_timeout: LONG,
        ..without_shedding()
    };
    let server = start(limits, stuck_behind(&gate));
    let partial = send_partial_head(&server);
    let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&get("/stuck"));
    }
    wait_until("all to begin", || {
        read(&server.stats.in_flight) == count as u64
    });
    assert_eq!(read(&server.stats.head_timeouts), 0);
    drop(partial);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.receive().status, 200);
    }
}

#[test]
fn stuck_handlers_of_one_class_leave_workers_for_the_others() {
    for (path, max_in_flight) in [
        ("/stuck/heavy", 2),
        ("/stuck/write", 4),
        ("/stuck/sign-in", 3),
    ] {
        let gate = Gate::new();
        let mut limits = Limits {
            workers: 8,
            write: Limits::for_workers(8).write,
            sign_in: Limits::for_workers(8).sign_in,
            ..without_shedding()
        };
        limits.heavy.max_in_flight = 2;
        limits.write.shed_after = TEST_TIMEOUT * 3;
        limits.sign_in.shed_after = TEST_TIMEOUT * 3;
        let server = start(limits, stuck_behind(&gate));
        let mut stuck: Vec<Client> = (0..16).map(|_| server.connect()).collect();
        for client in &mut stuck {
            client.send(&get(path));
        }
        let waiting = stuck.len() as u64 - max_in_flight;
        wait_until("as many as may to hang", || {
            read(&server.stats.queued) == waiting && read(&server.stats.in_flight) == max_in_flight
        });
        let mut other = server.connect();
        for number in 0..100 {
            other.send(&get(&format!("/{number}")));
            assert_eq!(other.receive().text(), format!("/{number}"));
        }
        assert_eq!(read(&server.stats.queued), waiting);
        gate.open();
        for client in &mut stuck {
            assert_eq!(client.receive().text(), path);
        }
    }
}

#[test]
fn stuck_writes_and_sign_ins_leave_workers_for_reads() {
    for workers in [2, 3, 8] {
        let gate = Gate::new();
        let limits = Limits {
            drain_timeout: limits().drain_timeout,
            ..Limits::for_workers(workers)
        };
        let server = start(limits, stuck_behind(&gate));
        let mut stuck: Vec<Client> = (0..4 * workers).map(|_| server.connect()).collect();
        for (number, client) in stuck.iter_mut().enumerate() {
            client.send(&get(["/stuck/write", "/stuck/sign-in"][number % 2]));
        }
        let mut reader = server.connect();
        // Until all that wait have been shed.
        while read(&server.stats.queued) > 0 || read(&server.stats.shed) == 0 {
            reader.send(&get("/read"));
            assert_eq!(reader.receive().text(), "/read");
        }
        gate.open();
    }
}

#[test]
fn immediate_requests_are_answered_while_every_worker_is_stuck() {
    let gate = Gate::new();
    let server = start(limits(), stuck_behind(&gate));
    let mut stuck: Vec<_> = (0..limits().workers).map(|_| server.connect()).collect();
    for client in &mut stuck {
        client.send(&get("/stuck"));
    }
    wait_until("stuck", || read(&server.stats.in_flight) == 4);
    let mut probe = server.connect();
    for _ in 0..100 {
        probe.send(&get("/alive?now"));
        assert_eq!(probe.receive().text(), "/alive?now");
    }
    probe.send(b"HEAD /alive HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(probe.receive_for(true).unwrap().status, 200);
    gate.open();
    for client in &mut stuck {
        assert_eq!(client.receive().text(), "/stuck");
    }
}

#[test]
fn classifier_panic_returns_500_and_keeps_the_worker() {
    let limits = Limits {
        workers: 1,
        ..limits()
    };
    let server = start(limits, stuck_behind(&Gate::new()));
    let mut client = server.connect();
    // More panics than workers.
    for _ in 0..5 {
        client.send(&get("/panic"));
        assert_eq!(client.receive().status, 500);
        client.send(&get("/good"));
        assert_eq!(client.receive().text(), "/good");
    }
    assert_eq!(read(&server.stats.handler_panics), 5);
}

#[test]
fn deadline_of_a_handler_includes_the_wait_in_the_queue() {
    let gate = Gate::new();
    let request_timeout = Duration::from_millis(2_500);
    let limits = Limits {
        workers: 1,
        request_timeout,
        ..without_shedding()
    };
    let remaining_times = Arc::new(Mutex::new(Vec::new()));
    let server = start_with_deadline(limits, {
        let (gate, remaining_times) = (Arc::clone(&gate), Arc::clone(&remaining_times));
        move |request, deadline| {
            let remaining = deadline.saturating_duration_since(Instant::now());
            remaining_times.lock().unwrap().push(remaining);
            if request.raw_url() == "/first" {
                gate.pass();
            }
            Response::text(request.raw_url().to_owned())
        }
    });
    let mut first = server.connect();
    first.send(&get("/first"));
    wait_until("start", || read(&server.stats.in_flight) == 1);
    let mut second = server.connect();
    second.send(&get("/second"));
    wait_until("queued", || read(&server.stats.queued) == 1);
    let waited = Duration::from_millis(1_500);
    thread::sleep(waited); // in the queue
    gate.open();
    assert_eq!(first.receive().text(), "/first");
    assert_eq!(second.receive().text(), "/second");
    let remaining_times = remaining_times.lock().unwrap();
    assert!(remaining_times[0] > request_timeout - waited);
    assert!(remaining_times[1] <= request_timeout - waited);
}

#[test]
fn request_that_is_queued_at_its_deadline_returns_503() {
    let gate = Gate::new();
    let request_timeout = Duration::from_millis(1_500);
    let limits = Limits {
        workers: 1,
        request_timeout,
        ..without_shedding()
    };
    let server = start(limits, stuck_behind(&gate));
    let mut stuck = server.connect();
    stuck.send(&get("/stuck"));
    wait_until("stuck", || read(&server.stats.in_flight) == 1);
    let mut queued = server.connect();
    let sent = Instant::now();
    queued.send(&get("/queued"));
    assert_503(&mut queued);
    // The server acts on deadlines every 100 ms; the rest is for a slow machine.
    let latest = request_timeout + Duration::from_millis(1_200);
    assert!((request_timeout..latest).contains(&sent.elapsed()));
    assert_eq!(read(&server.stats.queued), 0);
    gate.open();
    assert_eq!(stuck.receive().text(), "/stuck");
}

#[test]
fn pipelined_request_starts_although_its_worker_continues_with_a_hanging_handler() {
    let gate = Gate::new();
    let mut limits = without_shedding();
    limits.heavy.max_in_flight = 1;
    let first_may_end = Arc::new(AtomicBool::new(false));
    let server = start(limits, {
        let (gate, first_may_end) = (Arc::clone(&gate), Arc::clone(&first_may_end));
        move |request| {
            match request.raw_url() {
                "/stuck/heavy/first" => {
                    wait_until("the others", || first_may_end.load(Ordering::SeqCst));
                }
                "/stuck/heavy/second" => gate.pass(),
                _ => {}
            }
            Response::text(request.raw_url().to_owned())
        }
    });
    let mut pipelining = server.connect();
    // A pipelined request starts, so that the next one to start is not a pipelined one.
    let requests = ["/before", "/stuck/heavy/first", "/ordinary"].map(get);
    pipelining.send(&requests.concat());
    assert_eq!(pipelining.receive().text(), "/before");
    wait_until("first", || read(&server.stats.in_flight) == 1);
    let mut waiting = server.connect();
    waiting.send(&get("/stuck/heavy/second"));
    wait_until("second", || read(&server.stats.queued) == 1);
    // Its worker continues with the second request, and all other workers wait for events.
    first_may_end.store(true, Ordering::SeqCst);
    assert_eq!(pipelining.receive().text(), "/stuck/heavy/first");
    assert_eq!(pipelining.receive().text(), "/ordinary");
    gate.open();
    assert_eq!(waiting.receive().text(), "/stuck/heavy/second");
}

#[test]
fn request_waits_for_few_pipelined_requests_of_others() {
    const PIPELINED: usize = 200;
    let started = Arc::new(AtomicU64::new(0));
    let server = start(without_shedding(), {
        let started = Arc::clone(&started);
        move |request| {
            let before = match request.raw_url() {
                "/ordinary" => started.load(Ordering::SeqCst),
                _ => started.fetch_add(1, Ordering::SeqCst),
            };
            thread::sleep(Duration::from_micros(200)); // as a database takes it
            Response::text(before.to_string())
        }
    });
    let is_over = AtomicBool::new(false);
    let mut waited = thread::scope(|scope| {
        // Each always has requests in the queue, and reads their responses.
        for _ in 0..4 {
            scope.spawn(|| {
                let mut clients: Vec<_> = (0..PIPELINED / 4).map(|_| server.connect()).collect();
                for client in &mut clients {
                    client.send(&get("/pipelined").repeat(10));
                }
                while !is_over.load(Ordering::SeqCst) {
                    for client in &mut clients {
                        client.receive();
                        client.send(&get("/pipelined"));
                    }
                }
            });
        }
        wait_until("load", || read(&server.stats.queued) > PIPELINED as u64 / 2);
        let mut ordinary = server.connect();
        let waited: Vec<u64> = (0..200)
            .map(|_| {
                let before = started.load(Ordering::SeqCst);
                ordinary.send(&get("/ordinary"));
                ordinary.receive().text().parse::<u64>().unwrap() - before
            })
            .collect();
        is_over.store(true, Ordering::SeqCst);
        waited
    });
    waited.sort_unstable();
    // If each waited for all others, it would be nearly two hundred.
    assert!(waited[100] < 60, "{waited:?}");
}

#[test]
fn slow_clients_delay_no_others_and_time_out() {
    const EACH: usize = 50;
    let limits = Limits {
        workers: 2,
        head_timeout: Duration::from_secs(2),
        body_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_secs(2),
        ..limits()
    };
    let server = start(limits, |request| match request.raw_url() {
        "/large" => Response::from_data("text/plain", vec![b'x'; 8 << 20]),
        _ => Response::text("quick"),
    });
    let slow_body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbo";
    let kinds: [&[u8]; 4] = [b"GET / HT", slow_body, b"", &get("/large").repeat(20)];
    let mut slow = Vec::new();
    for kind in kinds {
        // Unread responses are so large that the memory limit allows only few of them.
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
                let mut before_any_timeout = 0;
                while read(&server.stats.write_timeouts) < 3 {
                    ordinary.send(&get("/"));
                    assert_eq!(ordinary.receive().text(), "quick");
                    if read(&server.stats.head_timeouts) + read(&server.stats.body_timeouts) == 0 {
                        before_any_timeout += 1;
                    }
                }
                // Clients that had to wait for slow ones would be answered only after those time out.
                assert!(before_any_timeout >= 20, "{before_any_timeout}");
            });
        }
    });
    let each = u64::try_from(EACH).unwrap();
    wait_until("head timeouts", || {
        read(&server.stats.head_timeouts) == each
    });
    wait_until("body timeouts", || {
        read(&server.stats.body_timeouts) == each
    });
    // The silent ones have a longer timeout.
    wait_until("the others to be closed", || {
        read(&server.stats.connections) == each
    });
}
