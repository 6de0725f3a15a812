//! The database: sessions, statements and their deadlines, migrations at start, error classes. The only module, with its
//! two neighbours, that names SQL files or PostgreSQL's types.
mod address;
pub mod coalescer;
mod connection_string;
pub mod counts;
mod database;
mod error;
mod executor;
pub mod import;
pub mod lists;
pub mod movies;
mod outage;
mod pool;
mod readiness;
mod schema;
mod session;
pub mod users;
mod write_limit;

use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::Row;
use postgres::types::Type;

use self::coalescer::RunError;
pub use self::database::Database;
pub use self::error::Error;
use self::executor::Executor;
use self::lists::FirstPages;
use self::movies::{Creations, MovieInputs, Updates};
pub use self::pool::PoolState;
pub use self::readiness::Readiness;
pub use self::schema::{State, check_schema, inspect, migrate};
use self::session::{Effect, Failure, Parameters};
use crate::telemetry::metrics;
use crate::telemetry::timings;

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It changes nothing.
    Read,
    /// It changes something.
    Write,
}

/// One statement: its name in the log, and its text, compiled in from the file of that name.
#[derive(Clone, Copy)]
struct Sql {
    name: &'static str,
    text: &'static str,
    /// Its parameters' types.
    types: &'static [Type],
    kind: Kind,
}

/// The statement in `sql/NAME.sql`, with the types of its parameters; `write` before the name if it changes something.
macro_rules! sql {
    (write $name:literal, [$($type:ident),*]) => {
        $crate::db::sql!(@ Write, $name, [$($type),*])
    };
    ($name:literal, [$($type:ident),*]) => {
        $crate::db::sql!(@ Read, $name, [$($type),*])
    };
    (@ $kind:ident, $name:literal, [$($type:ident),*]) => {
        $crate::db::Sql {
            name: $name,
            text: include_str!(concat!("../../sql/", $name, ".sql")),
            types: &[$(::postgres::types::Type::$type),*],
            kind: $crate::db::Kind::$kind,
        }
    };
}
use sql;

/// Where the database is and how long it is waited for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address, user, password and database.
    pub database: Database,
    /// Sessions at most: a quarter for writes, the others for reads, at least one each.
    pub pool_size: u32,
    /// How long each thing is waited for.
    pub timeouts: Timeouts,
    /// Inputs that one statement takes at most; with 1 each request has a statement of its own.
    pub max_batch: usize,
}

/// How long each thing is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// A free session.
    pub checkout: Duration,
    /// A statement.
    pub statement: Duration,
    /// A lock that a write needs.
    pub lock: Duration,
}

/// The sessions, and the queues in front of the statements that take many inputs.
pub struct Store {
    executor: Arc<Executor>,
    database: Database,
    max_wait: Duration,
    reads: MovieInputs,
    deletions: MovieInputs,
    updates: Updates,
    creations: Creations,
    first_pages: FirstPages,
}

/// The store for one request: every wait ends at the request's deadline.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    store: &'a Store,
    deadline: Instant,
}

/// Inputs in one batch. Past this the gain is gone, and a batch takes long enough to be felt.
pub const MAX_BATCH: usize = 64;

/// Reads that are worth a batch beside one in flight. Measured with 32 clients: against any number, and so smaller
/// batches, eight gave a tenth more first pages and a twentieth more reads.
const MIN_READ_BATCH: usize = 8;

impl Store {
    /// Opens sessions in the background; the schema is expected to be there.
    pub fn open(options: Options) -> Store {
        let executor = Arc::new(Executor::new(
            &options.database,
            options.pool_size,
            options.timeouts,
        ));
        let limits = coalescer::Limits {
            max_batch: options.max_batch,
            min_batch: 1,
            max_in_flight: 1,
            stall_timeout: write_limit::STALL_TIMEOUT,
        };
        // While the database answers one batch of reads, the next is sent and the last one is handed out. Writes take
        // turns: two batches could wait for each other's rows.
        let read_limits = coalescer::Limits {
            max_in_flight: 2,
            min_batch: MIN_READ_BATCH,
            ..limits
        };
        Store {
            reads: movies::coalesce_reads(read_limits, &executor),
            deletions: movies::coalesce_deletions(limits, &executor),
            updates: movies::coalesce_updates(limits, &executor),
            creations: movies::coalesce_creations(limits, &executor),
            first_pages: lists::coalesce_first_pages(read_limits, &executor),
            max_wait: options.timeouts.statement + executor::GRACE,
            database: options.database,
            executor,
        }
    }

    /// Checks the database in the background from now on.
    ///
    /// # Errors
    /// If the system has no threads left.
    pub fn start_checks(&self) -> std::io::Result<Arc<Readiness>> {
        readiness::start_checks(&self.database, &self.executor)
    }

    /// The store for one who waits until the deadline.
    pub fn until(&self, deadline: Instant) -> Access<'_> {
        Access {
            store: self,
            deadline,
        }
    }

    /// How many sessions there are, and how many of them are free.
    pub fn pool_state(&self) -> PoolState {
        self.executor.pool_state()
    }

    /// Writes that the server has not answered for more than a second.
    pub fn stalled_writes(&self) -> usize {
        self.executor.stalled_writes()
    }

    /// Sessions whose statement nobody waits for any longer.
    pub fn abandoned_sessions(&self) -> usize {
        self.executor.abandoned_sessions()
    }
}

impl Access<'_> {
    /// When the request's time is over.
    pub fn deadline(self) -> Instant {
        self.deadline
    }

    /// The rows of a statement of this request's own.
    fn run(self, sql: Sql, parameters: &Parameters) -> Result<Vec<Row>, Error> {
        let rows = self.store.executor.run(sql, parameters, self.deadline);
        rows.map_err(|failure| failure.error)
    }

    /// Until when a batch is waited for.
    fn batch_deadline(self) -> Instant {
        self.deadline.min(Instant::now() + self.store.max_wait)
    }
}

impl Sql {
    fn fault(&self, reason: impl ToString) -> Error {
        Error::Fault {
            statement: self.name,
            reason: reason.to_string(),
        }
    }
}

/// The rows for one input of a batch. They are decoded by the caller that submitted it, so that the leader is soon free.
type Rows = Vec<Row>;

/// Runs the statement for so many inputs. Its column `ordinal` counts them from 1.
fn run_batch(
    executor: &Executor,
    sql: Sql,
    parameters: &Parameters,
    inputs: usize,
    deadline: Instant,
) -> Result<Vec<Rows>, RunError<Error>> {
    let rows = executor.run(sql, parameters, deadline)?;
    metrics::count_batch(sql.name, inputs);
    timings::record_batch_size(inputs);
    // The statement was applied: from here on a failure repeats nothing.
    rows_by_ordinal(rows, inputs, sql).map_err(RunError::MaybeApplied)
}

fn rows_by_ordinal(rows: Vec<Row>, inputs: usize, sql: Sql) -> Result<Vec<Rows>, Error> {
    let mut outputs: Vec<Rows> = (0..inputs).map(|_| Rows::new()).collect();
    for row in rows {
        let ordinal: i64 = movies::get(&row, "ordinal", &sql)?;
        let index = usize::try_from(ordinal - 1).ok();
        let output = index.and_then(|index| outputs.get_mut(index));
        output
            .ok_or_else(|| sql.fault("a row belongs to no input"))?
            .push(row);
    }
    Ok(outputs)
}

impl From<Failure> for RunError<Error> {
    fn from(failure: Failure) -> RunError<Error> {
        match failure.effect {
            Effect::NotApplied => RunError::NotApplied(failure.error),
            Effect::MaybeApplied => RunError::MaybeApplied(failure.error),
        }
    }
}

fn only_row<'a>(rows: &'a Rows, sql: &Sql) -> Result<&'a Row, Error> {
    rows.first().ok_or_else(|| sql.fault("an input has no row"))
}
