//! What operators' probes ask: whether the process answers, whether the database does, and what was counted.
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use rouille::Response;
use serde::Serialize;

use super::error::Error;
use super::{App, answer_json};
use crate::metrics::Text;
use crate::server::Counters;
use crate::store;

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

/// `GET /readyz`: requests can be served, since the database answers; 503 while it does not.
pub fn check_readiness(app: &App) -> Result<Response, Error> {
    match app.store.check_ready() {
        Ok(()) => Ok(answer_json(200, &Health { status: "ok" })),
        Err(store::Error::Unavailable(_)) => {
            let body = Unready {
                detail: "Service temporarily unavailable, try again later.",
                not_ready: ["database"],
            };
            Ok(answer_json(503, &body).with_unique_header("Retry-After", "1"))
        }
        Err(error) => Err(error.into()),
    }
}

/// `GET /metrics`, in Prometheus's text format.
pub fn show_metrics(app: &App) -> Response {
    let mut text = Text::default();
    text.show_counted();
    if let Some(counters) = app.counters.get() {
        show_server(&mut text, counters);
    }
    let pool = app.store.pool_state();
    text.show(
        "gauge",
        "movies_database_pool_size",
        "Connections at the most",
        pool.size,
    );
    text.show(
        "gauge",
        "movies_database_connections",
        "Connections that are open",
        pool.open,
    );
    text.show(
        "gauge",
        "movies_database_connections_idle",
        "Open ones that nobody uses",
        pool.idle,
    );
    let (running, waiting) = app.hasher.queue_lengths();
    text.show(
        "gauge",
        "movies_password_hashes_running",
        "Passwords that are hashed",
        running,
    );
    text.show(
        "gauge",
        "movies_password_hashes_waiting",
        "Passwords that wait for a core",
        waiting,
    );
    text.describe("gauge", "movies_build_info", "Which version runs");
    text.sample(
        "movies_build_info",
        concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""),
        1,
    );
    show_process(&mut text);
    Response::from_data(
        "text/plain; version=0.0.4; charset=utf-8",
        text.into_string(),
    )
    .with_unique_header("Cache-Control", "no-store")
}

fn show_server(text: &mut Text, counters: &Counters) {
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
            "Bytes of bodies on their way",
            &counters.body_bytes,
        ),
    ] {
        text.show("gauge", name, help, load(gauge));
    }
    for (name, help, counter) in [
        (
            "movies_connections_accepted_total",
            "Connections accepted, the refused ones included",
            &counters.accepted,
        ),
        (
            "movies_connections_refused_total",
            "Connections past MAX_CONNECTIONS",
            &counters.refused,
        ),
        (
            "movies_accept_errors_total",
            "Accepts that failed",
            &counters.accept_errors,
        ),
        (
            "movies_server_requests_total",
            "Requests read whole, liveness probes included",
            &counters.requests,
        ),
        (
            "movies_server_refusals_total",
            "Requests that broke HTTP's rules or bounds",
            &counters.refusals,
        ),
        (
            "movies_requests_shed_total",
            "Requests answered 503 for want of a worker or memory",
            &counters.shed,
        ),
        (
            "movies_handler_timeouts_total",
            "Handlers past their deadline",
            &counters.handler_timeouts,
        ),
        (
            "movies_handler_panics_total",
            "Handlers that panicked",
            &counters.panics,
        ),
    ] {
        text.show("counter", name, help, load(counter));
    }
    let name = "movies_connections_cut_total";
    text.describe("counter", name, "Connections cut at a deadline");
    text.sample(name, "waiting_for=\"head\"", load(&counters.cut_heads));
    text.sample(name, "waiting_for=\"body\"", load(&counters.cut_bodies));
    text.sample(name, "waiting_for=\"write\"", load(&counters.cut_writes));
}

/// What Linux says of this process; where /proc cannot be read, nothing.
fn show_process(text: &mut Text) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes =
        resident.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    if let Some(kibibytes) = kibibytes {
        let name = "process_resident_memory_bytes";
        text.show("gauge", name, "Memory that is resident", kibibytes * 1024);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        text.show(
            "gauge",
            "process_open_fds",
            "File descriptors that are open",
            open.count(),
        );
    }
}
