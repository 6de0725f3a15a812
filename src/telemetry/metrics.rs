//! The metrics that the crate counts itself. `api::health` adds the server's and the database's, and renders all at
//! `/metrics`.
//!
//! Any thread may count here; nothing reads the values back except for `/metrics`. A label's value is always one of a
//! fixed list, never a client's text, so that clients cannot create time series.
use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The handler of a request, as a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // named as the handlers are
pub enum Route {
    Register,
    ObtainToken,
    RefreshToken,
    VerifyToken,
    BlacklistToken,
    ReadAccount,
    ReplaceAccount,
    UpdateAccount,
    DeleteAccount,
    ChangePassword,
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
    /// No handler: an unknown path, a method that the path does not allow, OPTIONS, a redirect, an invalid Host.
    #[default]
    Unknown,
}

impl Route {
    /// The label's value: the handler's name.
    pub fn name(self) -> &'static str {
        match self {
            Route::Register => "register",
            Route::ObtainToken => "obtain_token",
            Route::RefreshToken => "refresh_token",
            Route::VerifyToken => "verify_token",
            Route::BlacklistToken => "blacklist_token",
            Route::ReadAccount => "read_account",
            Route::ReplaceAccount => "replace_account",
            Route::UpdateAccount => "update_account",
            Route::DeleteAccount => "delete_account",
            Route::ChangePassword => "change_password",
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

/// Methods with a label of their own; all others are counted as `other`.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Upper bounds of the histograms of durations, in seconds: from less than the fastest read to more than every timeout.
const DURATIONS: [f64; 13] = [
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];

/// Upper bounds of the histogram of batch sizes, in requests, up to the largest batch.
const BATCH_SIZES: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    status: u16,
}

/// The name and the value of the only label.
type Label = [(&'static str, &'static str); 1];

struct Metrics {
    requests: Family<RequestLabels, Counter>,
    request_durations: Family<Label, Histogram>,
    checkouts: Histogram,
    checkout_timeouts: Counter,
    statements: Family<Label, Histogram>,
    batches: Family<Label, Histogram>,
    hash_waits: Histogram,
    hash_refusals: Counter,
    log_lines_dropped: Counter,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
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

/// Counts a response. `duration` is the time from calling the handler to its return.
pub fn count_request(route: Route, method: &str, status: u16, duration: Duration) {
    let route = route.name();
    let known = METHODS.into_iter().find(|known| *known == method);
    let labels = RequestLabels {
        route,
        method: known.unwrap_or("other"),
        status,
    };
    METRICS.requests.get_or_create(&labels).inc();
    let durations = &METRICS.request_durations;
    let durations = durations.get_or_create(&[("route", route)]);
    durations.observe(duration.as_secs_f64());
}

/// Counts a wait for a database connection that succeeded.
pub fn count_checkout(duration: Duration) {
    METRICS.checkouts.observe(duration.as_secs_f64());
}

/// Counts a wait for a database connection that timed out.
pub fn count_checkout_timeout() {
    METRICS.checkout_timeouts.inc();
}

/// Counts a statement, whether it succeeded or failed.
pub fn count_statement(statement: &'static str, duration: Duration) {
    let label = [("statement", statement)];
    let durations = METRICS.statements.get_or_create(&label);
    durations.observe(duration.as_secs_f64());
}

/// Counts an execution of a batched statement for this number of requests.
pub fn count_batch(statement: &'static str, requests: usize) {
    let sizes = METRICS.batches.get_or_create(&[("statement", statement)]);
    sizes.observe(u32::try_from(requests).unwrap_or(u32::MAX).into());
}

/// Counts a password's wait for a free core that succeeded.
pub fn count_hash_wait(duration: Duration) {
    METRICS.hash_waits.observe(duration.as_secs_f64());
}

/// Counts a password that was rejected because the queue for a core was full or its wait timed out.
pub fn count_hash_refusal() {
    METRICS.hash_refusals.inc();
}

/// Counts log lines that were not written.
pub fn count_lost_log_lines(lines: u64) {
    METRICS.log_lines_dropped.inc_by(lines);
}

/// Registers this module's metrics under their names in `/metrics`. The library adds `_total` to a counter's name.
pub fn register(registry: &mut Registry) {
    registry.register(
        "movies_http_requests",
        "Responses, by handler, method and status",
        METRICS.requests.clone(),
    );
    registry.register(
        "movies_http_request_duration_seconds",
        "Time from calling a handler to its return",
        METRICS.request_durations.clone(),
    );
    registry.register(
        "movies_database_checkout_duration_seconds",
        "Waits for a database connection that succeeded",
        METRICS.checkouts.clone(),
    );
    registry.register(
        "movies_database_checkout_timeouts",
        "Waits for a database connection that timed out",
        METRICS.checkout_timeouts.clone(),
    );
    registry.register(
        "movies_database_statement_duration_seconds",
        "Time from sending a statement to receiving its last row",
        METRICS.statements.clone(),
    );
    registry.register(
        "movies_database_batch_requests",
        "Requests combined in one execution of a statement",
        METRICS.batches.clone(),
    );
    registry.register(
        "movies_password_hash_wait_seconds",
        "Waits for a free core to hash or verify a password",
        METRICS.hash_waits.clone(),
    );
    registry.register(
        "movies_password_hash_refusals",
        "Passwords rejected because no core became free in time",
        METRICS.hash_refusals.clone(),
    );
    registry.register(
        "movies_log_lines_dropped",
        "Log lines dropped because writing them was too slow or failed",
        METRICS.log_lines_dropped.clone(),
    );
}
