//! Handlers that hang, panic or are too slow for all who ask, and clients that are slow: what happens to the others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed one is a failed test
#![allow(clippy::indexing_slicing)]
mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use movies_api::http::{ClassLimits, Limits};
use rouille::{Request, Response};
use support::{Client, Gate, PATIENCE, limits, serve, serve_by_deadline, wait_until};

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

/// The `head_deadline` where a client of [`begin_head`] is the measure of time.
const LONG: Duration = Duration::from_secs(4);

/// No request is shed while a test waits, nor given up.
fn patient() -> Limits {
    let class = |limits: ClassLimits| ClassLimits {
        shed_after: PATIENCE * 3,
        ..limits
    };
    let defaults = limits();
    Limits {
        ordinary: class(defaults.ordinary),
        heavy: class(defaults.heavy),
        write: class(defaults.write),
        sign_in: class(defaults.sign_in),
        queue_timeout: PATIENCE * 3,
        request_timeout: PATIENCE * 3,
        ..defaults
    }
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

/// A client whose head never comes to its end, so that it is cut after [`LONG`]: what has to happen sooner happens while
/// `cut_heads` is 0, and on a machine that is slow both are late.
fn begin_head(server: &support::Running) -> Client {
    let mut client = server.connect();
    client.send(b"GET / HT");
    client
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
        request_timeout: Duration::from_millis(200),
        head_deadline: LONG,
        ..limits()
    };
    let server = serve(limits, stuck_behind(&gate));
    let beside = begin_head(&server);
    let mut late = server.connect();
    late.send(&get("/stuck"));
    check_unavailable(&mut late);
    assert_eq!(read(&server.counters.cut_heads), 0);
    drop((late, beside));
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
        queue_timeout: Duration::from_millis(250),
        head_deadline: LONG,
        ..limits()
    };
    let server = serve(limits, stuck_behind(&gate));
    let beside = begin_head(&server);
    let mut stuck = server.connect();
    stuck.send(&get("/stuck"));
    wait_until("stuck", || read(&server.counters.in_flight) == 1);
    let mut waiting = server.connect();
    waiting.send(&get("/1"));
    check_unavailable(&mut waiting);
    assert_eq!(read(&server.counters.cut_heads), 0);
    drop(beside);
    gate.open();
    assert_eq!(stuck.receive().text(), "/stuck");
}

#[test]
fn however_many_wait_they_are_answered_if_it_is_not_for_long() {
    let gate = Gate::new();
    let limits = Limits {
        workers: 1,
        ..patient()
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
        head_deadline: LONG,
        ..patient()
    };
    let server = serve(limits, stuck_behind(&gate));
    let beside = begin_head(&server);
    let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&get("/stuck"));
    }
    wait_until("all to begin", || {
        read(&server.counters.in_flight) == count as u64
    });
    assert_eq!(read(&server.counters.cut_heads), 0);
    drop(beside);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.receive().status, 200);
    }
}

#[test]
fn handlers_of_one_class_that_hang_leave_workers_for_all_others() {
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
            ..patient()
        };
        limits.heavy.max_in_flight = 2;
        limits.write.shed_after = PATIENCE * 3;
        limits.sign_in.shed_after = PATIENCE * 3;
        let server = serve(limits, stuck_behind(&gate));
        let mut stuck: Vec<Client> = (0..16).map(|_| server.connect()).collect();
        for client in &mut stuck {
            client.send(&get(path));
        }
        let waiting = stuck.len() as u64 - max_in_flight;
        wait_until("as many as may to hang", || {
            read(&server.counters.queued) == waiting
                && read(&server.counters.in_flight) == max_in_flight
        });
        let mut other = server.connect();
        for number in 0..100 {
            other.send(&get(&format!("/{number}")));
            assert_eq!(other.receive().text(), format!("/{number}"));
        }
        assert_eq!(read(&server.counters.queued), waiting);
        gate.open();
        for client in &mut stuck {
            assert_eq!(client.receive().text(), path);
        }
    }
}

#[test]
fn writes_and_sign_ins_that_hang_together_leave_workers_for_reads() {
    for workers in [2, 3, 8] {
        let gate = Gate::new();
        let limits = Limits {
            drain_deadline: limits().drain_deadline,
            ..Limits::for_workers(workers)
        };
        let server = serve(limits, stuck_behind(&gate));
        let mut stuck: Vec<Client> = (0..4 * workers).map(|_| server.connect()).collect();
        for (number, client) in stuck.iter_mut().enumerate() {
            client.send(&get(["/stuck/write", "/stuck/sign-in"][number % 2]));
        }
        let mut reader = server.connect();
        // Through the whole time in which those that wait are shed, one after the other.
        while read(&server.counters.queued) > 0 || read(&server.counters.shed) == 0 {
            reader.send(&get("/read"));
            assert_eq!(reader.receive().text(), "/read");
        }
        gate.open();
    }
}

#[test]
fn immediate_requests_are_answered_while_every_worker_is_stuck() {
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
fn a_panic_in_the_classification_is_a_500_and_costs_no_worker() {
    let limits = Limits {
        workers: 1,
        ..limits()
    };
    let server = serve(limits, stuck_behind(&Gate::new()));
    let mut client = server.connect();
    // More often than there are workers.
    for _ in 0..5 {
        client.send(&get("/panic"));
        assert_eq!(client.receive().status, 500);
        client.send(&get("/good"));
        assert_eq!(client.receive().text(), "/good");
    }
    assert_eq!(read(&server.counters.panics), 5);
}

#[test]
fn the_time_of_a_request_runs_from_its_arrival_through_the_queue() {
    let gate = Gate::new();
    let request_timeout = Duration::from_millis(2_500);
    let limits = Limits {
        workers: 1,
        request_timeout,
        ..patient()
    };
    let told = Arc::new(Mutex::new(Vec::new()));
    let server = serve_by_deadline(limits, {
        let (gate, told) = (Arc::clone(&gate), Arc::clone(&told));
        move |request, deadline| {
            let rest = deadline.saturating_duration_since(Instant::now());
            told.lock().unwrap().push(rest);
            match request.raw_url() {
                "/first" => gate.pass(),
                _ => thread::sleep(PATIENCE),
            }
            Response::text("late")
        }
    });
    let mut first = server.connect();
    first.send(&get("/first"));
    wait_until("begun", || read(&server.counters.in_flight) == 1);
    let mut second = server.connect();
    let sent = Instant::now();
    second.send(&get("/second"));
    wait_until("queued", || read(&server.counters.queued) == 1);
    let waited = Duration::from_millis(1_500);
    thread::sleep(waited); // in the queue
    gate.open();
    assert_eq!(first.receive().text(), "late");
    check_unavailable(&mut second);
    // The server's own grace and its tick are a third of a second.
    let most = request_timeout + Duration::from_millis(1_200);
    assert!((request_timeout..most).contains(&sent.elapsed()));
    let told = told.lock().unwrap();
    assert!(told[0] > request_timeout - waited && told[1] <= request_timeout - waited);
}

#[test]
fn a_request_is_not_left_in_the_queue_while_all_workers_wait_for_events() {
    let cores = thread::available_parallelism().unwrap().get();
    let hanging = 8 * cores; // as many as begin at once
    for _ in 0..20 {
        let gate = Gate::new();
        let begun = Arc::new(AtomicU64::new(0));
        let limits = Limits {
            workers: 2 * hanging,
            ..patient()
        };
        let mut server = serve(limits, {
            let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
            move |request| {
                match request.raw_url() {
                    "/first" => {
                        // Until it counts no longer among those that began a moment ago, but all others do.
                        thread::sleep(Duration::from_millis(15));
                        begun.store(1, Ordering::SeqCst);
                        wait_until("others", || begun.load(Ordering::SeqCst) > hanging as u64);
                    }
                    "/second" => {}
                    _ => {
                        begun.fetch_add(1, Ordering::SeqCst);
                        gate.pass();
                    }
                }
                Response::text(request.raw_url().to_owned())
            }
        });
        let mut others: Vec<Client> = (0..hanging).map(|_| server.connect()).collect();
        let mut ahead = server.connect();
        ahead.send(&[get("/first"), get("/second")].concat());
        wait_until("the first to be old", || begun.load(Ordering::SeqCst) == 1);
        for client in &mut others {
            client.send(&get("/other"));
        }
        assert_eq!(ahead.receive().text(), "/first");
        assert_eq!(ahead.receive().text(), "/second");
        gate.open();
        server.stop();
    }
}

#[test]
fn an_ordinary_request_waits_for_few_of_those_that_others_sent_ahead() {
    const AHEAD: usize = 200;
    let started = Arc::new(AtomicU64::new(0));
    let server = serve(patient(), {
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
        // Each always has requests in line, and takes their responses.
        for _ in 0..4 {
            scope.spawn(|| {
                let mut clients: Vec<_> = (0..AHEAD / 4).map(|_| server.connect()).collect();
                for client in &mut clients {
                    client.send(&get("/ahead").repeat(10));
                }
                while !is_over.load(Ordering::SeqCst) {
                    for client in &mut clients {
                        client.receive();
                        client.send(&get("/ahead"));
                    }
                }
            });
        }
        wait_until("load", || read(&server.counters.queued) > AHEAD as u64 / 2);
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
    // Where each waits for all others it is nearly two hundred.
    assert!(waited[100] < 60, "{waited:?}");
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
    let counters = &server.counters;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut ordinary = server.connect();
                let mut before_any_cut = 0;
                while read(&counters.cut_writes) < 3 {
                    ordinary.send(&get("/"));
                    assert_eq!(ordinary.receive().text(), "quick");
                    if read(&counters.cut_heads) + read(&counters.cut_bodies) == 0 {
                        before_any_cut += 1;
                    }
                }
                // Whoever had to wait for slow clients would be answered when these are cut.
                assert!(before_any_cut >= 20, "{before_any_cut}");
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
