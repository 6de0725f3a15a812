//! What operators' probes ask: whether the process answers, whether the database does, and what was counted.
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rouille::Response;
use serde::Serialize;

use super::error::Error;
use super::{App, answer_json};
use crate::http::Stats;
use crate::telemetry::metrics;

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// What is missing, without a word on where it would be.
#[derive(Serialize)]
struct Unready {
    detail: &'static str,
    not_ready: [&'static str; 1],
}

/// `GET /healthz`: the process answers, whatever the database does.
pub fn check_liveness() -> Response {
    answer_json(200, &Health { status: "ok" })
}

/// `GET /readyz`: 200 if the last check of the database, at most two seconds ago, succeeded, else 503. Waits for nothing.
pub fn check_readiness(app: &App) -> Response {
    if app.readiness.is_ready() {
        return answer_json(200, &Health { status: "ok" });
    }
    let body = Unready {
        detail: "Service temporarily unavailable, try again later.",
        not_ready: ["database"],
    };
    answer_json(503, &body).with_unique_header("Retry-After", "1")
}

/// `GET /metrics`, in Prometheus's own text format: every scraper takes it, and promtool reads no other. The registry
/// lives for one answer, in which what other rooms count is read as it is now.
///
/// # Errors
/// None that is known: the text is written to memory.
pub fn show_metrics(app: &App) -> Result<Response, Error> {
    let mut registry = Registry::default();
    metrics::register(&mut registry);
    if let Some(counters) = app.counters.get() {
        register_server(&mut registry, counters);
    }
    register_waits(&mut registry, app);
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    registry.register("movies_build", "Which version runs", Info::new(version));
    register_process(&mut registry);
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)
        .map_err(|error| Error::Fault(error.to_string()))?;
    let response = Response::from_data(prometheus_text::CONTENT_TYPE, text);
    Ok(response.with_unique_header("Cache-Control", "no-store"))
}

fn register_server(registry: &mut Registry, counters: &Stats) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for (name, help, gauge) in [
        (
            "movies_connections",
            "Clients' connections that are open",
            &counters.connections,
        ),
        (
            "movies_requests_in_flight",
            "Handlers that run",
            &counters.in_flight,
        ),
        (
            "movies_requests_queued",
            "Requests that wait for a worker",
            &counters.queued,
        ),
        (
            "movies_body_bytes",
            "Bytes of bodies on their way, and of answers not taken",
            &counters.buffered_bytes,
        ),
    ] {
        registry.register(name, help, ConstGauge::new(load(gauge)));
    }
    for (name, help, counter) in [
        (
            "movies_connections_accepted",
            "Connections accepted, the refused ones included",
            &counters.accepted,
        ),
        (
            "movies_connections_refused",
            "Connections past MAX_CONNECTIONS",
            &counters.rejected_connections,
        ),
        (
            "movies_accept_errors",
            "Accepts that failed",
            &counters.accept_errors,
        ),
        (
            "movies_server_requests",
            "Requests read whole, liveness probes included",
            &counters.requests,
        ),
        (
            "movies_server_refusals",
            "Requests that broke HTTP's rules or bounds",
            &counters.rejected_requests,
        ),
        (
            "movies_requests_shed",
            "Requests answered 503 for want of a worker or memory",
            &counters.shed,
        ),
        (
            "movies_handler_timeouts",
            "Handlers that returned after their deadline",
            &counters.handler_timeouts,
        ),
        (
            "movies_handler_panics",
            "Handlers that panicked",
            &counters.handler_panics,
        ),
    ] {
        registry.register(name, help, ConstCounter::new(load(counter)));
    }
    let cut = Family::<[(&str, &str); 1], Counter>::default();
    for (waiting_for, counter) in [
        ("head", &counters.head_timeouts),
        ("body", &counters.body_timeouts),
        ("write", &counters.write_timeouts),
    ] {
        let series = cut.get_or_create(&[("waiting_for", waiting_for)]);
        series.inc_by(load(counter));
    }
    registry.register(
        "movies_connections_cut",
        "Connections cut at a deadline",
        cut,
    );
}

/// What requests wait for: connections to the database, and cores for their passwords.
fn register_waits(registry: &mut Registry, app: &App) {
    let pool = app.store.pool_state();
    registry.register(
        "movies_database_pool_size",
        "Connections at the most",
        ConstGauge::new(pool.size),
    );
    registry.register(
        "movies_database_connections",
        "Connections that are open",
        ConstGauge::new(pool.open),
    );
    registry.register(
        "movies_database_connections_idle",
        "Open ones that nobody uses",
        ConstGauge::new(pool.idle),
    );
    registry.register(
        "movies_database_writes_stalled",
        "Writes that the server has not answered for more than a second",
        ConstGauge::new(to_u64(app.store.stalled_writes())),
    );
    registry.register(
        "movies_database_sessions_abandoned",
        "Connections whose statement nobody waits for any longer",
        ConstGauge::new(to_u64(app.store.abandoned_sessions())),
    );
    let (running, waiting) = app.hasher.queue_lengths();
    registry.register(
        "movies_password_hashes_running",
        "Passwords that are hashed",
        ConstGauge::new(running),
    );
    registry.register(
        "movies_password_hashes_waiting",
        "Passwords that wait for a core",
        ConstGauge::new(waiting),
    );
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// What Linux says of this process; where /proc cannot be read, nothing.
fn register_process(registry: &mut Registry) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes =
        resident.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    if let Some(kibibytes) = kibibytes {
        registry.register(
            "process_resident_memory_bytes",
            "Memory that is resident",
            ConstGauge::new(kibibytes * 1024),
        );
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        registry.register(
            "process_open_fds",
            "File descriptors that are open",
            ConstGauge::new(open.count()),
        );
    }
}
