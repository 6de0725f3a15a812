//! What is recorded about the request that the current thread handles: its handler, its user, and its time in the
//! database.
//!
//! This is the crate's one piece of hidden per-thread state. The values are known far below the handlers, in the
//! connection pool and in the coalescer, whose signatures would otherwise all carry a `&mut RequestRecord` that only
//! the access log reads.
//!
//! - Written by the routes and the authentication of `api` ([`record_route`], [`record_user`]) and by `db`
//!   ([`record_pool_wait`], [`record_statement`], [`record_batch_size`], [`add`]), always on the thread that handles the
//!   request.
//! - Read by `api::middleware` alone, for the access log, the metrics and the header Server-Timing.
//! - Reset by [`take`], which the middleware calls before each request and after it.
//!
//! A coalescer's leader executes a statement for other threads' requests too. It runs it inside [`measure`], and each
//! thread whose request was part of the batch [`add`]s the result to its own record.
use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use crate::telemetry::metrics::Route;

/// What was recorded about one request.
#[derive(Clone, Copy, Default)]
pub struct RequestRecord {
    /// [`Route::Unknown`] until `router!` has dispatched the request.
    pub route: Route,
    /// The user whose valid access token the request carried.
    pub user_id: Option<i64>,
    /// All zero if the handler did not use the database.
    pub timings: Timings,
}

/// The time of one request in the database. The time a request waits for the batch before its own is in none of the
/// fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Sum of all waits for a connection of the pool.
    pub pool_wait: Duration,
    /// Name of the statement that took longest.
    pub statement: Option<&'static str>,
    /// Time from sending that statement to receiving its last row.
    pub statement_duration: Duration,
    /// Number of requests that the statement's batch combined; 0 for a statement that is never batched.
    pub batch_size: usize,
}

thread_local! {
    static RECORD: Cell<RequestRecord> = Cell::default();
}

fn update(change: impl FnOnce(&mut RequestRecord)) {
    let mut record = RECORD.get();
    change(&mut record);
    RECORD.set(record);
}

/// Returns what this thread recorded since the last call, and resets it.
pub fn take() -> RequestRecord {
    RECORD.take()
}

/// Records the handler that `router!` chose.
pub fn record_route(route: Route) {
    update(|record| record.route = route);
}

/// Records the user whose valid access token the request carries.
pub fn record_user(id: i64) {
    update(|record| record.user_id = Some(id));
}

/// Adds a wait for a connection, whether the wait succeeded or timed out.
pub fn record_pool_wait(duration: Duration) {
    update(|record| record.timings.pool_wait += duration);
}

/// Records a statement that took `duration` to execute; of several statements, the longest is kept.
pub fn record_statement(name: &'static str, duration: Duration) {
    add(Timings {
        statement: Some(name),
        statement_duration: duration,
        ..Timings::default()
    });
}

/// Records how many requests the statement that ran last combined.
pub fn record_batch_size(requests: usize) {
    update(|record| record.timings.batch_size = requests);
}

/// Runs `work` and returns the timings that it recorded; the record of this thread's own request stays as it was.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Timings) {
    let own = RECORD.get().timings;
    update(|record| record.timings = Timings::default());
    let output = work();
    let measured = RECORD.get().timings;
    update(|record| record.timings = own);
    (output, measured)
}

/// Adds measured timings to the record of this thread's request: waits are summed, of the statements the longest is
/// kept.
pub fn add(timings: Timings) {
    update(|record| {
        let pool_wait = record.timings.pool_wait + timings.pool_wait;
        if timings.statement.is_some()
            && timings.statement_duration >= record.timings.statement_duration
        {
            record.timings = timings;
        }
        record.timings.pool_wait = pool_wait;
    });
}

impl Timings {
    /// Whether the request did not use the database.
    pub fn is_empty(&self) -> bool {
        *self == Timings::default()
    }
}

/// Writes the value of a Server-Timing header (W3C Server Timing, section 2), in milliseconds.
impl fmt::Display for Timings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;
        write!(formatter, "pool;dur={:.3}", milliseconds(self.pool_wait))?;
        if let Some(name) = self.statement {
            let duration = milliseconds(self.statement_duration);
            write!(formatter, ", statement;desc=\"{name}\";dur={duration:.3}")?;
        }
        if self.batch_size > 0 {
            write!(formatter, ", batch;desc=\"{}\"", self.batch_size)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(2);
    const LONG: Duration = Duration::from_micros(7250);

    #[test]
    fn timings_keep_the_longest_statement_and_the_sum_of_pool_waits() {
        take();
        for (name, duration) in [
            ("users/find", SHORT),
            ("movies/read", LONG),
            ("users/x", SHORT),
        ] {
            record_pool_wait(SHORT);
            record_statement(name, duration);
        }
        let timings = take().timings;
        assert_eq!(
            timings.to_string(),
            r#"pool;dur=6.000, statement;desc="movies/read";dur=7.250"#
        );
        assert!(take().timings.is_empty());
    }

    #[test]
    fn measured_work_counts_only_for_requests_that_add_it() {
        take();
        record_user(7);
        record_statement("own", SHORT);
        let ((), batch) = measure(|| {
            record_pool_wait(LONG);
            record_statement("theirs", LONG);
            record_batch_size(3);
        });
        assert_eq!(RECORD.get().timings.statement, Some("own"));
        add(batch);
        let record = take();
        assert_eq!((record.user_id, record.timings), (Some(7), batch));
        assert_eq!(
            batch.to_string(),
            r#"pool;dur=7.250, statement;desc="theirs";dur=7.250, batch;desc="3""#
        );
    }
}
