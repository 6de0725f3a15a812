//! What is counted, by the library that Prometheus's own authors keep for it. Uses no other room; anybody may count
//! here. No label comes from a client: each value is one of a few words of ours, so nobody can make series.
use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Who answered a request: a handler by its name, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the handlers' own names
pub enum Route {
    Register,
    ObtainToken,
    RefreshToken,
    ListMovies,
    CreateMovie,
    ReadMovie,
    ReplaceMovie,
    UpdateMovie,
    DeleteMovie,
    CheckLiveness,
    CheckReadiness,
    ShowMetrics,
    ShowSchema,
    ShowDocs,
    /// No handler: an unknown path, a method that the path does not have, OPTIONS, a redirect, a bad Host.
    Unknown,
}

impl Route {
    /// The handler's name.
    pub fn name(self) -> &'static str {
        match self {
            Route::Register => "register",
            Route::ObtainToken => "obtain_token",
            Route::RefreshToken => "refresh_token",
            Route::ListMovies => "list_movies",
            Route::CreateMovie => "create_movie",
            Route::ReadMovie => "read_movie",
            Route::ReplaceMovie => "replace_movie",
            Route::UpdateMovie => "update_movie",
            Route::DeleteMovie => "delete_movie",
            Route::CheckLiveness => "check_liveness",
            Route::CheckReadiness => "check_readiness",
            Route::ShowMetrics => "show_metrics",
            Route::ShowSchema => "show_schema",
            Route::ShowDocs => "show_docs",
            Route::Unknown => "unknown",
        }
    }
}

/// Those that are shown as they are; all others are `other`, so that nobody can make series by sending words.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// In seconds: from a read that met no batch to one past every deadline.
const DURATIONS: [f64; 13] = [
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];

/// In requests, up to the largest batch.
const BATCH_SIZES: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Taken {
    route: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Run {
    statement: &'static str,
}

struct Meters {
    requests: Family<Answered, Counter>,
    request_durations: Family<Taken, Histogram>,
    checkouts: Histogram,
    checkout_timeouts: Counter,
    statements: Family<Run, Histogram>,
    batches: Family<Run, Histogram>,
    hash_waits: Histogram,
    hash_refusals: Counter,
    log_lines_dropped: Counter,
}

static METERS: LazyLock<Meters> = LazyLock::new(|| Meters {
    requests: Family::default(),
    request_durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
    checkouts: Histogram::new(DURATIONS),
    checkout_timeouts: Counter::default(),
    statements: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
    batches: Family::new_with_constructor(|| Histogram::new(BATCH_SIZES)),
    hash_waits: Histogram::new(DURATIONS),
    hash_refusals: Counter::default(),
    log_lines_dropped: Counter::default(),
});

/// One more request that was answered with this status after so long.
pub fn count_request(route: Route, method: &str, status: u16, duration: Duration) {
    let route = route.name();
    let known = METHODS.into_iter().find(|known| *known == method);
    let answered = Answered {
        route,
        method: known.unwrap_or("other"),
        status,
    };
    METERS.requests.get_or_create(&answered).inc();
    let durations = METERS.request_durations.get_or_create(&Taken { route });
    durations.observe(duration.as_secs_f64());
}

/// One more request that waited so long for a connection to the database, and got it.
pub fn count_checkout(duration: Duration) {
    METERS.checkouts.observe(duration.as_secs_f64());
}

/// One more request that got no connection in time.
pub fn count_checkout_timeout() {
    METERS.checkout_timeouts.inc();
}

/// One more statement that ran so long, whether it succeeded or not.
pub fn count_statement(statement: &'static str, duration: Duration) {
    let durations = METERS.statements.get_or_create(&Run { statement });
    durations.observe(duration.as_secs_f64());
}

/// One more batch of so many requests that this statement answered together.
pub fn count_batch(statement: &'static str, requests: usize) {
    let sizes = METERS.batches.get_or_create(&Run { statement });
    sizes.observe(u32::try_from(requests).unwrap_or(u32::MAX).into());
}

/// One more password that waited so long for a free core, and got it.
pub fn count_hash_wait(duration: Duration) {
    METERS.hash_waits.observe(duration.as_secs_f64());
}

/// One more password that got no core: the queue was full, or it waited too long.
pub fn count_hash_refusal() {
    METERS.hash_refusals.inc();
}

/// So many lines of the log that were not written.
pub fn count_lost_log_lines(lines: u64) {
    METERS.log_lines_dropped.inc_by(lines);
}

/// Puts what was counted in this room among what is shown. The library adds `_total` to a counter's name.
pub fn register(registry: &mut Registry) {
    registry.register(
        "movies_http_requests",
        "Requests that were answered",
        METERS.requests.clone(),
    );
    registry.register(
        "movies_http_request_duration_seconds",
        "From a handler's call to its return",
        METERS.request_durations.clone(),
    );
    registry.register(
        "movies_database_checkout_duration_seconds",
        "Waits for a connection that was got",
        METERS.checkouts.clone(),
    );
    registry.register(
        "movies_database_checkout_timeouts",
        "Waits for a connection in vain",
        METERS.checkout_timeouts.clone(),
    );
    registry.register(
        "movies_database_statement_duration_seconds",
        "From a statement's sending to its last row",
        METERS.statements.clone(),
    );
    registry.register(
        "movies_database_batch_requests",
        "Requests that one statement answered",
        METERS.batches.clone(),
    );
    registry.register(
        "movies_password_hash_wait_seconds",
        "Waits of passwords for a free core",
        METERS.hash_waits.clone(),
    );
    registry.register(
        "movies_password_hash_refusals",
        "Passwords that got no core",
        METERS.hash_refusals.clone(),
    );
    registry.register(
        "movies_log_lines_dropped",
        "Log lines that were dropped since writing them took too long or failed",
        METERS.log_lines_dropped.clone(),
    );
}
