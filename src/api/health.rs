//! Endpoints for operators: liveness and readiness probes, and Prometheus metrics.
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rouille::{Request, Response};
use serde_json::json;

use super::error::ApiError;
use super::{AppState, HandlerResult, RequestContext, json_response};
use crate::http::Stats;
use crate::telemetry::metrics;

/// `GET /healthz`: 200 as long as the process handles requests, even without the database.
pub fn check_liveness(_: &Request, _: &RequestContext) -> HandlerResult {
    Ok(json_response(200, &json!({"status": "ok"})))
}

/// `GET /readyz`: 200 if the last check of the database, at most two seconds ago, succeeded, else 503. Does not block.
pub fn check_readiness(request: &Request, context: &RequestContext) -> HandlerResult {
    if context.state.readiness.is_ready() {
        return check_liveness(request, context);
    }
    // Names what is not ready, but no addresses.
    let detail = "Service temporarily unavailable, try again later.";
    let body = json!({"detail": detail, "not_ready": ["database"]});
    Ok(json_response(503, &body).with_unique_header("Retry-After", "1"))
}

/// `GET /metrics`, in Prometheus's text format, which every scraper and promtool reads. Each response has a registry of its
/// own, filled with the current values of all counters.
pub fn show_metrics(_: &Request, context: &RequestContext) -> HandlerResult {
    let state = context.state;
    let mut registry = Registry::default();
    metrics::register(&mut registry);
    if let Some(stats) = state.server_stats.get() {
        register_server(&mut registry, stats);
    }
    register_waits(&mut registry, state);
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    registry.register(
        "movies_build",
        "The version of the running program",
        Info::new(version),
    );
    register_process(&mut registry);
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    let response = Response::from_data(prometheus_text::CONTENT_TYPE, text);
    Ok(response.with_unique_header("Cache-Control", "no-store"))
}

fn register_server(registry: &mut Registry, stats: &Stats) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for (name, help, gauge) in [
        (
            "movies_connections",
            "Open client connections",
            &stats.connections,
        ),
        (
            "movies_requests_in_flight",
            "Handlers running now",
            &stats.in_flight,
        ),
        (
            "movies_requests_queued",
            "Requests waiting for a worker",
            &stats.queued,
        ),
        (
            "movies_body_bytes",
            "Bytes reserved for request bodies being received and responses being sent",
            &stats.buffered_bytes,
        ),
    ] {
        registry.register(name, help, ConstGauge::new(load(gauge)));
    }
    for (name, help, counter) in [
        (
            "movies_connections_accepted",
            "Connections accepted, including those refused afterwards",
            &stats.accepted,
        ),
        (
            "movies_connections_refused",
            "Connections refused because of MAX_CONNECTIONS",
            &stats.rejected_connections,
        ),
        (
            "movies_accept_errors",
            "Failed accept calls",
            &stats.accept_errors,
        ),
        (
            "movies_server_requests",
            "Requests received completely, including probes",
            &stats.requests,
        ),
        (
            "movies_server_refusals",
            "Requests rejected for violating HTTP or a limit",
            &stats.rejected_requests,
        ),
        (
            "movies_requests_shed",
            "Requests rejected with 503 for lack of a worker or memory",
            &stats.shed,
        ),
        (
            "movies_handler_timeouts",
            "Handlers that returned after the deadline of their request",
            &stats.handler_timeouts,
        ),
        (
            "movies_handler_panics",
            "Handlers that panicked",
            &stats.handler_panics,
        ),
    ] {
        registry.register(name, help, ConstCounter::new(load(counter)));
    }
    let timed_out = Family::<[(&str, &str); 1], Counter>::default();
    for (waiting_for, counter) in [
        ("head", &stats.head_timeouts),
        ("body", &stats.body_timeouts),
        ("write", &stats.write_timeouts),
    ] {
        let series = timed_out.get_or_create(&[("waiting_for", waiting_for)]);
        series.inc_by(load(counter));
    }
    registry.register(
        "movies_connections_cut",
        "Connections closed by a timeout, or for lack of memory for a response",
        timed_out,
    );
}

/// What requests wait for: database connections, and cores to hash passwords.
fn register_waits(registry: &mut Registry, state: &AppState) {
    let pool = state.database.pool_state();
    registry.register(
        "movies_database_pool_size",
        "Maximum number of database connections",
        ConstGauge::new(pool.size),
    );
    registry.register(
        "movies_database_connections",
        "Open database connections",
        ConstGauge::new(pool.open),
    );
    registry.register(
        "movies_database_connections_idle",
        "Open database connections that are idle",
        ConstGauge::new(pool.idle),
    );
    registry.register(
        "movies_database_writes_stalled",
        "Writes for whose result PostgreSQL has taken more than a second so far",
        ConstGauge::new(pool.stalled_writes),
    );
    registry.register(
        "movies_database_sessions_abandoned",
        "Database connections whose statement outlived its request",
        ConstGauge::new(pool.abandoned),
    );
    let (running, waiting) = state.hasher.queue_lengths();
    registry.register(
        "movies_password_hashes_running",
        "Passwords being hashed now",
        ConstGauge::new(running),
    );
    registry.register(
        "movies_password_hashes_waiting",
        "Passwords waiting for a core",
        ConstGauge::new(waiting),
    );
}

/// Memory and open files of this process; nothing on systems without /proc.
fn register_process(registry: &mut Registry) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes =
        resident.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    if let Some(kibibytes) = kibibytes {
        registry.register(
            "process_resident_memory_bytes",
            "Resident memory",
            ConstGauge::new(kibibytes * 1024),
        );
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        registry.register(
            "process_open_fds",
            "Open file descriptors",
            ConstGauge::new(open.count()),
        );
    }
}
