//! PostgreSQL: connections, statements and their deadlines, migrations. The only module that names SQL files or types of
//! the crate `postgres`; it returns plain structs and [`Error`].
//!
//! A statement passes through these parts:
//!
//! ```text
//! request's thread: movies.rs, users.rs -> coalescer.rs -> executor.rs -> pool.rs -> session.rs (its own thread) -> server
//! ```
//!
//! - **Connections.** [`ConnectionConfig`] (connect.rs, url.rs) tries the servers of DATABASE_URL in turn, each on a thread
//!   with a deadline. Each connection belongs to a thread of its own too (session.rs), since the synchronous client has no
//!   deadlines; a caller waits for its result until the caller's.
//! - **Pools.** Reads and writes have separate pools of sessions (pool.rs), so that writes which hang leave the reads
//!   their sessions.
//! - **Deadlines.** Every wait of a request ends at the request's deadline ([`RequestDatabase`]): for its batch, for a
//!   free session (at most [`Timeouts::checkout`], 200 ms while no server can be reached), and for the result of a
//!   statement (at most [`Timeouts::statement`], which the server enforces, and half a second more).
//! - **Coalescers.** Requests that need the same statement at the same time share one run of it (coalescer.rs,
//!   movies.rs). Reads and first pages may have two runs in flight; each kind of write has one, since two could wait for
//!   each other's rows.
//! - **Retries.** The executor runs a statement again if it was certainly not applied and another session may succeed:
//!   the session had ended while it was idle, the server had become read-only, or the connection was lost before the
//!   statement was sent. A read is also run again, once, if the connection was lost later; a write is not, since it may
//!   have been applied ([`Error::Unconfirmed`]). The coalescer runs the inputs of a batch that was rolled back one by one,
//!   so that one input's failure does not fail the others.
//! - **A server that hangs.** A write that has run for a second no longer delays the next; while five such writes run,
//!   further writes are refused (write_limit.rs). If the server answers nothing at all for three seconds, all open
//!   sessions are replaced: new ones are opened, on the next server if there are several. The background check
//!   (readiness.rs) notices this without requests, and answers `/readyz`.
//! - **Poolers.** Behind PgBouncer in transaction mode, which keeps no state of a session between transactions, statements
//!   are sent without being prepared, and the role's own timeouts apply instead of ours.
//! - **Deleted accounts.** A background thread (account_deletion.rs) deletes the movies of accounts that have many.
//!
//! The commands that inspect, migrate, recount and import (schema.rs, migrations.rs, counts.rs, import.rs) use none of these
//! parts but connect.rs: each has a connection and a time limit of its own.
pub mod account_deletion;
pub mod coalescer;
mod connect;
pub mod counts;
mod error;
mod executor;
pub mod import;
mod migrations;
pub mod movies;
mod pool;
mod readiness;
mod schema;
mod session;
pub mod tokens;
mod url;
pub mod users;
mod write_limit;

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use postgres::Row;
use postgres::types::{FromSql, Type};

use self::coalescer::{BatchLimits, Coalescer, Effect, Input};
pub use self::connect::ConnectionConfig;
pub use self::error::Error;
use self::executor::Executor;
pub use self::executor::PoolState;
pub use self::migrations::migrate;
use self::movies::MovieCoalescers;
pub use self::readiness::Readiness;
pub use self::schema::{SchemaState, check_schema, inspect};
use self::session::Parameters;
use crate::telemetry::metrics;
use crate::telemetry::timings;

/// The most inputs of one batch that are worth it: larger ones gain nothing, and take noticeably longer.
pub const MAX_BATCH: usize = 64;

/// The inputs that justify a second run of a read in flight. Measured with `./run.sh bench --peer` against a build without
/// this minimum, and so with smaller batches: read 1.10, first page 1.23, search 1.00.
const MIN_READ_BATCH: usize = 8;

/// The connection, the size of the pools, and the time limits.
#[derive(Clone, Debug)]
pub struct Options {
    /// The servers, the user, the password and the database.
    pub connection: ConnectionConfig,
    /// The maximum number of sessions: a quarter for writes, the rest for reads, at least one of each.
    pub pool_size: u32,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// The maximum number of inputs of one batch; with 1 each request runs a statement of its own.
    pub max_batch: usize,
}

/// The time limits of one statement.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// The wait for a free session.
    pub checkout: Duration,
    /// The run of a statement, enforced by the server (`statement_timeout`).
    pub statement: Duration,
    /// The wait of a write for a lock, enforced by the server (`lock_timeout`).
    pub lock: Duration,
}

/// The pools of sessions, and the coalescers in front of them. All threads share one.
pub struct Database {
    executor: Arc<Executor>,
    connection: ConnectionConfig,
    max_batch_wait: Duration,
    /// Wakes the thread that deletes movies of deleted accounts; set once it is started.
    deletion_waker: OnceLock<SyncSender<()>>,
    coalescers: MovieCoalescers,
}

impl Database {
    /// Opens the sessions in the background. The schema must be up to date ([`migrate`]).
    pub fn open(options: Options) -> Database {
        let executor = Arc::new(Executor::new(
            &options.connection,
            options.pool_size,
            options.timeouts,
        ));
        let write_limits = BatchLimits {
            max_batch: options.max_batch,
            min_batch: 1,
            max_in_flight: 1,
            stall_timeout: write_limit::STALL_TIMEOUT,
        };
        // While the server runs one batch, the next is sent and the rows of the last are decoded. Measured with
        // `./run.sh bench --peer` against a build with one in flight: read 1.17, first page 1.23, search 0.99.
        let read_limits = BatchLimits {
            max_in_flight: 2,
            min_batch: MIN_READ_BATCH,
            ..write_limits
        };
        Database {
            coalescers: MovieCoalescers::new(read_limits, write_limits, &executor),
            max_batch_wait: options.timeouts.statement + executor::GRACE,
            connection: options.connection,
            deletion_waker: OnceLock::new(),
            executor,
        }
    }

    /// Starts the thread that checks the database from now on, twice a second.
    ///
    /// # Errors
    /// If the system refuses another thread.
    pub fn start_checks(&self) -> std::io::Result<Arc<Readiness>> {
        readiness::start_checks(&self.connection, &self.executor)
    }

    /// Starts the thread that deletes the movies of deleted accounts, including those whose deletion another process began and
    /// did not finish. It ends when the database is dropped.
    ///
    /// # Errors
    /// If the system refuses another thread.
    pub fn start_deletions(&self) -> std::io::Result<()> {
        let waker = account_deletion::start_thread(&self.executor)?;
        self.deletion_waker.get_or_init(|| waker);
        Ok(())
    }

    /// Returns the view for a request whose waits end at the deadline.
    pub fn with_deadline(&self, deadline: Instant) -> RequestDatabase<'_> {
        RequestDatabase {
            database: self,
            deadline,
        }
    }

    /// Returns the state of both pools together.
    pub fn pool_state(&self) -> PoolState {
        self.executor.pool_state()
    }
}

/// The database as one request uses it: every wait ends at the request's deadline.
#[derive(Clone, Copy)]
pub struct RequestDatabase<'a> {
    database: &'a Database,
    deadline: Instant,
}

impl<'a> RequestDatabase<'a> {
    /// Returns when the request's time is over.
    pub fn deadline(self) -> Instant {
        self.deadline
    }

    fn coalescers(self) -> &'a MovieCoalescers {
        &self.database.coalescers
    }

    /// Waits for the rows of this input of a batch.
    fn submit<I: Input>(
        self,
        coalescer: &Coalescer<I, Rows, Error>,
        input: I,
    ) -> Result<Rows, Error> {
        let latest = Instant::now() + self.database.max_batch_wait;
        coalescer.submit(input, self.deadline.min(latest))
    }

    /// Runs a statement for this request alone.
    fn run(self, sql: Sql, parameters: &Parameters) -> Result<Vec<Row>, Error> {
        let rows = self.database.executor.run(sql, parameters, self.deadline);
        rows.map_err(|failure| failure.error)
    }
}

/// Which pool a statement uses, and whether it may be run again after a lost connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

impl Kind {
    /// Returns the error for a statement that was sent and not answered, for this reason.
    fn no_response(self, reason: String) -> Error {
        match self {
            Kind::Read => Error::Unavailable(reason),
            Kind::Write => Error::Unconfirmed(reason),
        }
    }
}

/// A statement, compiled in from a file in sql/.
#[derive(Clone, Copy)]
struct Sql {
    /// The file's path in sql/ without the extension. It names the statement in logs and metrics.
    name: &'static str,
    text: &'static str,
    types: &'static [Type],
    kind: Kind,
}

impl Sql {
    /// Returns the error for a failure that only a mistake in this program or its schema explains.
    fn fault(&self, reason: impl ToString) -> Error {
        Error::Fault {
            statement: self.name,
            reason: reason.to_string(),
        }
    }
}

/// Includes the statement in `sql/NAME.sql`, with the types of its parameters. `Write` before the name marks one that
/// changes rows.
macro_rules! sql {
    ($name:literal, $types:tt) => {
        $crate::db::sql!(Read $name, $types)
    };
    ($kind:ident $name:literal, [$($type:ident),*]) => {
        $crate::db::Sql {
            name: $name,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/", $name, ".sql")),
            types: &[$(::postgres::types::Type::$type),*],
            kind: $crate::db::Kind::$kind,
        }
    };
}
use sql;

fn first_row<'a>(rows: &'a [Row], sql: &Sql) -> Result<&'a Row, Error> {
    rows.first().ok_or_else(|| sql.fault("it returned no row"))
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str, sql: &Sql) -> Result<T, Error> {
    row.try_get(column).map_err(|error| sql.fault(error))
}

/// Decodes a row into a struct whose fields have the names of the columns. Returns from the function on an error.
macro_rules! decode {
    ($row:expr, $sql:expr => $type:ident { $($field:ident),* $(,)? }) => {
        $type { $($field: $crate::db::get($row, stringify!($field), $sql)?),* }
    };
}
use decode;

/// The rows for one input of a batch. The caller that submitted the input decodes them, so that the leader is soon free.
type Rows = Vec<Row>;

/// Makes a coalescer that runs a statement for its inputs, whose columns are the statement's parameters.
fn coalesce<I: Input>(
    executor: &Arc<Executor>,
    limits: BatchLimits,
    sql: Sql,
    columns: impl Fn(&[I]) -> Parameters + Send + Sync + 'static,
) -> Coalescer<I, Rows, Error> {
    let executor = Arc::clone(executor);
    Coalescer::new(limits, move |inputs: &[I], deadline| {
        let rows = executor.run(sql, &columns(inputs), deadline);
        let rows = rows.map_err(|failure| (failure.error, failure.effect))?;
        metrics::count_batch(sql.name, inputs.len());
        timings::record_batch_size(inputs.len());
        // The statement was applied: after a failure from here on it must not run again.
        rows_by_ordinal(rows, inputs.len(), sql).map_err(|error| (error, Effect::MaybeApplied))
    })
}

/// Distributes the rows to their inputs. The column `ordinal` is the input's position in the batch, from 1.
fn rows_by_ordinal(rows: Vec<Row>, inputs: usize, sql: Sql) -> Result<Vec<Rows>, Error> {
    let mut outputs: Vec<Rows> = (0..inputs).map(|_| Rows::new()).collect();
    for row in rows {
        let ordinal: i64 = get(&row, "ordinal", &sql)?;
        let index = usize::try_from(ordinal - 1).ok();
        let output = index.and_then(|index| outputs.get_mut(index));
        output
            .ok_or_else(|| sql.fault(format!("a row has the ordinal {ordinal}, of {inputs}")))?
            .push(row);
    }
    Ok(outputs)
}
