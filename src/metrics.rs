//! What is counted, and how Prometheus reads it. Uses no other room; anybody may count here. Counting takes no lock and
//! no memory: every series has its place from the start, and those that are still zero are not shown.
use std::fmt::{self, Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

const ROUTES: [&str; 15] = [
    "register",
    "obtain_token",
    "refresh_token",
    "list_movies",
    "create_movie",
    "read_movie",
    "replace_movie",
    "update_movie",
    "delete_movie",
    "check_liveness",
    "check_readiness",
    "show_metrics",
    "show_schema",
    "show_docs",
    "unknown",
];

/// The last stands for all others, so that nobody can make series by sending words.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other",
];

const STATUSES: [&str; 16] = [
    "200", "201", "204", "301", "308", "400", "401", "403", "404", "405", "413", "415", "429",
    "500", "503", "other",
];

/// Numbers sorted into buckets, each with its upper bound as it is shown.
pub struct Histogram<const BOUNDS: usize> {
    bounds: [(u64, &'static str); BOUNDS],
    counts: [AtomicU64; BOUNDS],
    beyond: AtomicU64,
    sum: AtomicU64,
}

impl<const BOUNDS: usize> Histogram<BOUNDS> {
    const fn new(bounds: [(u64, &'static str); BOUNDS]) -> Histogram<BOUNDS> {
        Histogram {
            bounds,
            counts: [const { AtomicU64::new(0) }; BOUNDS],
            beyond: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    fn observe(&self, value: u64) {
        let place = self.bounds.iter().position(|(bound, _)| value <= *bound);
        let count = place.and_then(|place| self.counts.get(place));
        count
            .unwrap_or(&self.beyond)
            .fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// `labels` is empty or `name="value"`.
    fn show(&self, text: &mut Text, name: &str, labels: &str, sum: impl Fn(u64) -> String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        let finite = self.bounds.iter().map(|(_, shown)| *shown);
        let counts = self.counts.iter().chain([&self.beyond]);
        for (bound, count) in finite.chain(["+Inf"]).zip(counts) {
            total += count.load(Ordering::Relaxed);
            let labels = format!("{labels}{comma}le=\"{bound}\"");
            text.sample(&format!("{name}_bucket"), &labels, total);
        }
        let sum = sum(self.sum.load(Ordering::Relaxed));
        text.sample(&format!("{name}_sum"), labels, sum);
        text.sample(&format!("{name}_count"), labels, total);
    }

    fn is_empty(&self) -> bool {
        let mut counts = self.counts.iter().chain([&self.beyond]);
        counts.all(|count| count.load(Ordering::Relaxed) == 0)
    }
}

/// Times in microseconds, shown in seconds.
pub struct Durations(Histogram<13>);

impl Durations {
    const fn new() -> Durations {
        Durations(Histogram::new([
            (250, "0.00025"),
            (500, "0.0005"),
            (1_000, "0.001"),
            (2_500, "0.0025"),
            (5_000, "0.005"),
            (10_000, "0.01"),
            (25_000, "0.025"),
            (50_000, "0.05"),
            (100_000, "0.1"),
            (250_000, "0.25"),
            (1_000_000, "1"),
            (2_500_000, "2.5"),
            (10_000_000, "10"),
        ]))
    }

    /// One more that took this long.
    pub fn observe(&self, duration: Duration) {
        self.0
            .observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    fn show(&self, text: &mut Text, name: &str, labels: &str) {
        self.0.show(text, name, labels, |micros| {
            format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
        });
    }
}

static REQUESTS: [[[AtomicU64; STATUSES.len()]; METHODS.len()]; ROUTES.len()] =
    [const { [const { [const { AtomicU64::new(0) }; STATUSES.len()] }; METHODS.len()] };
        ROUTES.len()];
static REQUEST_DURATIONS: [Durations; ROUTES.len()] = [const { Durations::new() }; ROUTES.len()];

/// How long requests waited for a connection to the database and got it.
pub static CHECKOUTS: Durations = Durations::new();
/// Requests that got no connection in time.
pub static CHECKOUT_TIMEOUTS: AtomicU64 = AtomicU64::new(0);
/// How long passwords waited for a free core and got it.
pub static HASH_WAITS: Durations = Durations::new();
/// Passwords that got no core: the queue was full, or they waited too long.
pub static HASH_REFUSALS: AtomicU64 = AtomicU64::new(0);

static BATCHES: [(&str, Histogram<7>); 5] = [
    batch("movies/create"),
    batch("movies/read"),
    batch("movies/update"),
    batch("movies/delete"),
    batch("movies/list_first"),
];

const fn batch(statement: &str) -> (&str, Histogram<7>) {
    let bounds = [
        (1, "1"),
        (2, "2"),
        (4, "4"),
        (8, "8"),
        (16, "16"),
        (32, "32"),
        (64, "64"),
    ];
    (statement, Histogram::new(bounds))
}

/// One more request that was answered.
pub fn count_request(route: Route, method: &str, status: u16, duration: Duration) {
    let find = |table: &[&str], word: &str| {
        let place = table.iter().position(|known| *known == word);
        place.unwrap_or(table.len() - 1)
    };
    let mut digits = *b"000";
    for (digit, unit) in digits.iter_mut().zip([100, 10, 1]) {
        *digit += u8::try_from(status / unit % 10).unwrap_or_default();
    }
    let status = find(&STATUSES, str::from_utf8(&digits).unwrap_or_default());
    let counter = REQUESTS
        .get(route as usize)
        .and_then(|methods| methods.get(find(&METHODS, method)))
        .and_then(|statuses| statuses.get(status));
    if let (Some(counter), Some(durations)) = (counter, REQUEST_DURATIONS.get(route as usize)) {
        counter.fetch_add(1, Ordering::Relaxed);
        durations.observe(duration);
    }
}

/// One more batch of so many requests that this statement answered together.
pub fn count_batch(statement: &str, requests: usize) {
    if let Some((_, sizes)) = BATCHES.iter().find(|(name, _)| *name == statement) {
        sizes.observe(u64::try_from(requests).unwrap_or(u64::MAX));
    }
}

/// Prometheus's text format, version 0.0.4, as it grows.
#[derive(Default)]
pub struct Text(String);

impl Text {
    /// A family without labels: one counter or gauge.
    pub fn show(&mut self, kind: &str, name: &str, help: &str, value: impl Display) {
        self.describe(kind, name, help);
        self.sample(name, "", value);
    }

    /// The head of a family, before its samples.
    pub fn describe(&mut self, kind: &str, name: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One sample; `labels` is empty or `name="value"`, with commas between several.
    pub fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        if labels.is_empty() {
            self.write(format_args!("{name} {value}\n"));
        } else {
            self.write(format_args!("{name}{{{labels}}} {value}\n"));
        }
    }

    /// What was counted in this room.
    pub fn show_counted(&mut self) {
        self.show_requests();
        let name = "movies_database_checkout_duration_seconds";
        self.describe("histogram", name, "Waits for a connection that was got");
        CHECKOUTS.show(self, name, "");
        let timeouts = CHECKOUT_TIMEOUTS.load(Ordering::Relaxed);
        let name = "movies_database_checkout_timeouts_total";
        self.show("counter", name, "Waits for a connection in vain", timeouts);
        let name = "movies_password_hash_wait_seconds";
        self.describe("histogram", name, "Waits of passwords for a free core");
        HASH_WAITS.show(self, name, "");
        let refusals = HASH_REFUSALS.load(Ordering::Relaxed);
        let name = "movies_password_hash_refusals_total";
        self.show("counter", name, "Passwords that got no core", refusals);
        let name = "movies_database_batch_requests";
        self.describe("histogram", name, "Requests that one statement answered");
        for (statement, sizes) in &BATCHES {
            let labels = format!("statement=\"{statement}\"");
            sizes.show(self, name, &labels, |sum| sum.to_string());
        }
    }

    fn show_requests(&mut self) {
        let name = "movies_http_requests_total";
        self.describe("counter", name, "Requests that were answered");
        for (route, methods) in ROUTES.iter().zip(&REQUESTS) {
            for (method, statuses) in METHODS.iter().zip(methods) {
                for (status, counter) in STATUSES.iter().zip(statuses) {
                    let count = counter.load(Ordering::Relaxed);
                    if count > 0 {
                        let labels =
                            format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
                        self.sample(name, &labels, count);
                    }
                }
            }
        }
        let name = "movies_http_request_duration_seconds";
        self.describe("histogram", name, "From a handler's call to its return");
        for (route, durations) in ROUTES.iter().zip(&REQUEST_DURATIONS) {
            if !durations.0.is_empty() {
                durations.show(self, name, &format!("route=\"{route}\""));
            }
        }
    }

    fn write(&mut self, arguments: fmt::Arguments) {
        // Writing to a String does not fail.
        self.0.write_fmt(arguments).unwrap_or_default();
    }

    /// The whole text.
    pub fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_its_bucket_and_buckets_add_up() {
        let durations = Durations::new();
        for micros in [250, 251, 20_000_000] {
            durations.observe(Duration::from_micros(micros));
        }
        let mut text = Text::default();
        durations.show(&mut text, "x", "a=\"b\"");
        let text = text.into_string();
        assert!(
            text.contains("x_bucket{a=\"b\",le=\"0.00025\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("x_bucket{a=\"b\",le=\"0.0005\"} 2\n"),
            "{text}"
        );
        assert!(text.contains("x_bucket{a=\"b\",le=\"10\"} 2\n"), "{text}");
        assert!(text.contains("x_bucket{a=\"b\",le=\"+Inf\"} 3\n"), "{text}");
        assert!(
            text.ends_with("x_sum{a=\"b\"} 20.000501\nx_count{a=\"b\"} 3\n"),
            "{text}"
        );
    }

    #[test]
    fn every_route_has_its_name() {
        assert_eq!(ROUTES.get(Route::Register as usize), Some(&"register"));
        assert_eq!(ROUTES.get(Route::Unknown as usize), Some(&"unknown"));
        assert_eq!(Route::Unknown as usize + 1, ROUTES.len());
    }
}
