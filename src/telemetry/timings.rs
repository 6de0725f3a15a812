//! What is learnt of a request while its thread answers it: by which handler, who asks, where the time went. It is kept
//! beside the calls, so that no handler and no statement has to pass it on. Anybody may note here.
use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use crate::telemetry::metrics::Route;

/// What was learnt of one request.
#[derive(Clone, Copy)]
pub struct Trace {
    /// The handler that took it.
    pub route: Route,
    /// Whose access token it carried, if it carried a good one.
    pub user_id: Option<i64>,
    /// Where its time went.
    pub spent: Spent,
}

/// Where a request's time went in the database. One that was answered in a batch spent what its batch did; what it
/// waited for the batch before is none of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Waiting for connections.
    pub pool: Duration,
    /// The statement that took longest.
    pub statement: Option<&'static str>,
    /// From that statement's sending to its last row.
    pub running: Duration,
    /// How many requests that statement answered together; 0 if it was none of those that do.
    pub batch: usize,
}

const NOTHING: Trace = Trace {
    route: Route::Unknown,
    user_id: None,
    spent: Spent {
        pool: Duration::ZERO,
        statement: None,
        running: Duration::ZERO,
        batch: 0,
    },
};

thread_local! {
    static TRACE: Cell<Trace> = const { Cell::new(NOTHING) };
}

fn note(change: impl FnOnce(&mut Trace)) {
    let mut trace = TRACE.get();
    change(&mut trace);
    TRACE.set(trace);
}

/// What was learnt since the last call; a request begins and ends with one.
pub fn take() -> Trace {
    TRACE.replace(NOTHING)
}

/// This handler takes the request.
pub fn note_route(route: Route) {
    note(|trace| trace.route = route);
}

/// The request carries this user's good access token.
pub fn note_asker(id: i64) {
    note(|trace| trace.user_id = Some(id));
}

/// The request waited so long for a connection, whether it got one or not.
pub fn note_pool(duration: Duration) {
    note(|trace| trace.spent.pool += duration);
}

/// The statement of this name ran so long.
pub fn note_statement(name: &'static str, duration: Duration) {
    add(Spent {
        statement: Some(name),
        running: duration,
        ..Spent::default()
    });
}

/// The statement that ran last answered so many requests together.
pub fn note_batch(requests: usize) {
    note(|trace| trace.spent.batch = requests);
}

/// What the work spends, for whoever it is done: the request of this thread is charged nothing.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Spent) {
    let own = TRACE.get().spent;
    note(|trace| trace.spent = Spent::default());
    let done = work();
    let spent = TRACE.get().spent;
    note(|trace| trace.spent = own);
    (done, spent)
}

/// Charges the request of this thread with what was measured.
pub fn add(spent: Spent) {
    note(|trace| {
        let pool = trace.spent.pool + spent.pool;
        if spent.statement.is_some() && spent.running >= trace.spent.running {
            trace.spent = spent;
        }
        trace.spent.pool = pool;
    });
}

impl Spent {
    /// Whether the request met the database at all.
    pub fn is_nothing(&self) -> bool {
        *self == Spent::default()
    }
}

/// As the header Server-Timing has it (W3C Server Timing 2), in milliseconds.
impl fmt::Display for Spent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;
        write!(formatter, "pool;dur={:.3}", in_milliseconds(self.pool))?;
        if let Some(name) = self.statement {
            let running = in_milliseconds(self.running);
            write!(formatter, ", statement;desc=\"{name}\";dur={running:.3}")?;
        }
        if self.batch > 0 {
            write!(formatter, ", batch;desc=\"{}\"", self.batch)?;
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
    fn a_request_is_told_by_its_longest_statement_and_all_its_waits() {
        take();
        for (name, duration) in [
            ("users/find", SHORT),
            ("movies/read", LONG),
            ("users/x", SHORT),
        ] {
            note_pool(SHORT);
            note_statement(name, duration);
        }
        let spent = take().spent;
        assert_eq!(
            spent.to_string(),
            r#"pool;dur=6.000, statement;desc="movies/read";dur=7.250"#
        );
        assert!(take().spent.is_nothing());
    }

    #[test]
    fn work_for_others_is_charged_to_those_who_add_it() {
        take();
        note_asker(7);
        note_statement("own", SHORT);
        let ((), batch) = measure(|| {
            note_pool(LONG);
            note_statement("theirs", LONG);
            note_batch(3);
        });
        assert_eq!(TRACE.get().spent.statement, Some("own"));
        add(batch);
        let trace = take();
        assert_eq!((trace.user_id, trace.spent), (Some(7), batch));
        assert_eq!(
            batch.to_string(),
            r#"pool;dur=7.250, statement;desc="theirs";dur=7.250, batch;desc="3""#
        );
    }
}
