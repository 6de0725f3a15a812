//! What the peer counts: as much of a request as the product does, by the same library.
use std::sync::LazyLock;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// In seconds.
const DURATIONS: [f64; 13] = [
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Taken {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Run {
    statement: &'static str,
}

struct Meters {
    requests: Family<Answered, Counter>,
    request_durations: Family<Taken, Histogram>,
    checkouts: Histogram,
    statements: Family<Run, Histogram>,
}

static METERS: LazyLock<Meters> = LazyLock::new(|| Meters {
    requests: Family::default(),
    request_durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
    checkouts: Histogram::new(DURATIONS),
    statements: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
});

pub fn count_request(route: &'static str, method: &'static str, status: u16, duration: Duration) {
    let answered = Answered {
        route,
        method,
        status,
    };
    METERS.requests.get_or_create(&answered).inc();
    let durations = METERS.request_durations.get_or_create(&Taken { route });
    durations.observe(duration.as_secs_f64());
}

pub fn count_checkout(duration: Duration) {
    METERS.checkouts.observe(duration.as_secs_f64());
}

pub fn count_statement(statement: &'static str, duration: Duration) {
    let durations = METERS.statements.get_or_create(&Run { statement });
    durations.observe(duration.as_secs_f64());
}

pub async fn show() -> Response {
    let meters = &*METERS;
    let mut registry = Registry::default();
    registry.register("requests", "Requests answered", meters.requests.clone());
    registry.register(
        "request_duration_seconds",
        "From a handler's call to its answer",
        meters.request_durations.clone(),
    );
    registry.register(
        "checkout_duration_seconds",
        "Waits for a connection",
        meters.checkouts.clone(),
    );
    registry.register(
        "statement_duration_seconds",
        "From a statement's sending to its last row",
        meters.statements.clone(),
    );
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => text.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
