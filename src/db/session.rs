//! A session: one connection, and the thread that owns its client and runs one statement at a time.
//!
//! The synchronous client has no deadlines, so callers hand each statement to the session's thread and wait for the result
//! until their own deadline. A session whose statement misses the deadline is *abandoned*: the caller gets an error, and
//! the thread waits until the statement returns and then closes the connection. No cancel request is sent, since it would
//! end a commit's wait for its synchronous standby, and so make visible what is not replicated.
//!
//! Threads: the caller that checked the session out of its pool sends a `Job`, the session's thread sends the
//! `JobResult` back. The thread ends when the [`Session`] is dropped and no statement is running.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use postgres::error::{DbError, Severity, SqlState};
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{Row, Statement};

use super::Sql;
use super::coalescer::Effect;
use super::connect::{ConnectError, ConnectedClient};
use super::error::{Error, classify};
use super::write_limit::RunningWrite;
use crate::telemetry::metrics;
use crate::telemetry::timings;

/// A session that was idle for longer first reads what the server sent meanwhile, such as the end of the session.
const MAX_UNCHECKED_IDLE: Duration = Duration::from_millis(10);

/// A statement's parameters. They are owned and shared, since a statement may outlive its caller's wait, and may be run
/// again.
pub type Parameters = Arc<[Box<dyn ToSql + Sync + Send>]>;

/// Makes [`Parameters`] of these values, in their order.
macro_rules! parameters {
    ($($value:expr),* $(,)?) => {
        $crate::db::session::Parameters::from([$(
            Box::new($value) as Box<dyn ::postgres::types::ToSql + Sync + Send>
        ),*])
    };
}
pub(super) use parameters;

/// The caller's side of a session.
pub struct Session {
    jobs: SyncSender<Job>,
    results: Receiver<JobResult>,
    abandonment: Arc<Abandonment>,
    pub opened: Instant,
    /// Whether another statement may be run. If not, the pool closes the session once it is given back.
    pub is_usable: bool,
}

struct Job {
    sql: Sql,
    parameters: Parameters,
    /// Held until the statement returns, even if its caller no longer waits.
    _running: Option<RunningWrite>,
}

struct JobResult {
    rows: Result<Vec<Row>, StatementFailure>,
    duration: Duration,
    is_usable: bool,
}

/// Why a statement returned no rows.
#[derive(Debug)]
pub struct StatementFailure {
    pub error: Error,
    pub effect: Effect,
    pub cause: Cause,
}

/// What a failure says about the session and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing: the statement itself failed.
    Statement,
    /// The session had ended while it was idle.
    EndedIdle,
    /// The server rejects writes.
    ReadOnly,
    /// The connection was lost.
    Lost,
    /// The server did not respond in time.
    Hung,
}

impl StatementFailure {
    /// A failure before the statement was sent.
    pub fn not_sent(error: Error) -> StatementFailure {
        StatementFailure {
            error,
            effect: Effect::NotApplied,
            cause: Cause::Statement,
        }
    }

    fn ended_idle() -> StatementFailure {
        StatementFailure {
            error: Error::Unavailable("the server ended an idle session".to_owned()),
            effect: Effect::NotApplied,
            cause: Cause::EndedIdle,
        }
    }
}

/// The number of sessions that are abandoned now.
pub type AbandonedCount = Arc<AtomicUsize>;

/// Whether one session is abandoned. The caller sets it, the session's thread clears the count when it ends.
struct Abandonment {
    is_abandoned: AtomicBool,
    count: AbandonedCount,
}

/// Dropped at the end of the session's thread.
struct ThreadGuard(Arc<Abandonment>);

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        // Marked in either case, so that a caller which abandons the session from here on does not count it.
        if self.0.is_abandoned.swap(true, Ordering::AcqRel) {
            self.0.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Session {
    /// Starts the thread for this client. While the session is abandoned, `abandoned_count` includes it.
    ///
    /// # Errors
    /// If the system refuses another thread.
    pub fn start(
        client: ConnectedClient,
        abandoned_count: &AbandonedCount,
    ) -> Result<Session, ConnectError> {
        let (jobs, incoming_jobs) = sync_channel::<Job>(1);
        let (outgoing_results, results) = sync_channel(1);
        let abandonment = Arc::new(Abandonment {
            is_abandoned: AtomicBool::new(false),
            count: Arc::clone(abandoned_count),
        });
        let guard = ThreadGuard(Arc::clone(&abandonment));
        let thread = thread::Builder::new().name("session".to_owned());
        let started = thread.spawn(move || {
            let _guard = guard;
            let mut client = SessionClient {
                connected: client,
                prepared: HashMap::new(),
                last_used: Instant::now(),
            };
            // Ends when the caller's side is dropped.
            for job in incoming_jobs {
                let result = client.run(&job);
                // A write no longer counts as running when its caller receives the result.
                drop(job);
                if outgoing_results.send(result).is_err() {
                    break;
                }
            }
        });
        started.map_err(ConnectError::temporary)?;
        Ok(Session {
            jobs,
            results,
            abandonment,
            opened: Instant::now(),
            is_usable: true,
        })
    }

    /// Runs the statement. If it has not returned by the deadline, the session is abandoned. `running` is held until the
    /// statement returns.
    pub fn query(
        &mut self,
        sql: Sql,
        parameters: &Parameters,
        running: Option<RunningWrite>,
        deadline: Instant,
    ) -> Result<Vec<Row>, StatementFailure> {
        let job = Job {
            sql,
            parameters: Arc::clone(parameters),
            _running: running,
        };
        if self.jobs.try_send(job).is_err() {
            self.is_usable = false;
            return Err(StatementFailure::ended_idle());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let result = self.results.recv_timeout(left).unwrap_or_else(|end| {
            let cause = match end {
                RecvTimeoutError::Timeout => Cause::Hung,
                RecvTimeoutError::Disconnected => Cause::Lost,
            };
            if cause == Cause::Hung && !self.abandonment.is_abandoned.swap(true, Ordering::AcqRel) {
                self.abandonment.count.fetch_add(1, Ordering::Relaxed);
            }
            JobResult {
                rows: Err(StatementFailure {
                    error: sql.kind.no_response("no response in time".to_owned()),
                    effect: Effect::MaybeApplied,
                    cause,
                }),
                duration: left,
                is_usable: false,
            }
        });
        self.is_usable &= result.is_usable;
        metrics::count_statement(sql.name, result.duration);
        timings::record_statement(sql.name, result.duration);
        result.rows
    }
}

/// The thread's side of a session: the client and the statements prepared on it.
struct SessionClient {
    connected: ConnectedClient,
    prepared: HashMap<&'static str, Statement>,
    last_used: Instant,
}

impl SessionClient {
    fn run(&mut self, job: &Job) -> JobResult {
        let start = Instant::now();
        let was_idle = start.duration_since(self.last_used) > MAX_UNCHECKED_IDLE;
        let rows = if was_idle && self.has_ended() {
            Err(StatementFailure::ended_idle())
        } else {
            self.query(&job.sql, &job.parameters)
        };
        self.last_used = Instant::now();
        let is_usable = match &rows {
            Ok(_) => true,
            Err(failure) => {
                let has_responded = matches!(failure.cause, Cause::Statement | Cause::ReadOnly);
                has_responded && !self.connected.client.is_closed()
            }
        };
        JobResult {
            rows,
            duration: self.last_used.duration_since(start),
            is_usable,
        }
    }

    /// Whether the server has ended the session. Reads what the server sent, without a round trip.
    fn has_ended(&mut self) -> bool {
        // The timeout, though zero, lets the client's event loop run once: without that a message that has arrived is
        // not seen.
        let client = &mut self.connected.client;
        let received = client.notifications().timeout_iter(Duration::ZERO).next();
        received.is_err() || client.is_closed()
    }

    fn query(&mut self, sql: &Sql, parameters: &Parameters) -> Result<Vec<Row>, StatementFailure> {
        let values: Vec<&(dyn ToSql + Sync)> = parameters
            .iter()
            .map(|value| value.as_ref() as &(dyn ToSql + Sync))
            .collect();
        if !self.connected.keeps_state {
            let typed: Vec<_> = values.into_iter().zip(sql.types.iter().cloned()).collect();
            let rows = self.connected.client.query_typed(sql.text, &typed);
            return rows.map_err(|error| classify_failure(sql, &error, true));
        }
        match self.query_prepared(sql, &values) {
            Err((error, _)) if must_prepare_again(&error) => {
                self.prepared.remove(sql.name);
                self.query_prepared(sql, &values)
            }
            result => result,
        }
        .map_err(|(error, was_sent)| classify_failure(sql, &error, was_sent))
    }

    /// An error comes with whether the statement itself was sent, and not only its preparation.
    fn query_prepared(
        &mut self,
        sql: &Sql,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, (postgres::Error, bool)> {
        let client = &mut self.connected.client;
        let statement = match self.prepared.get(sql.name) {
            Some(statement) => statement.clone(),
            None => {
                let prepared = client.prepare_typed(sql.text, sql.types);
                let statement = prepared.map_err(|error| (error, false))?;
                self.prepared.insert(sql.name, statement.clone());
                statement
            }
        };
        client
            .query(&statement, values)
            .map_err(|error| (error, true))
    }
}

/// Whether the prepared statement was not run because it no longer fits: `alter table` changed the type of its result
/// (0A000, "cached plan must not change result type"), or `deallocate` or a pooler removed it (26000).
fn must_prepare_again(error: &postgres::Error) -> bool {
    const CODES: [SqlState; 2] = [
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INVALID_SQL_STATEMENT_NAME,
    ];
    severity(error) == Some(Severity::Error)
        && error.code().is_some_and(|code| CODES.contains(code))
}

/// Tells from an error whether the statement may have been applied, and what happened to the session.
///
/// An error of severity ERROR rolls back the statement's transaction, which contains nothing else; an idle session that
/// ended ran no statement: in both cases nothing was applied. After any other end this is unknown, since even a FATAL
/// message may follow the commit.
fn classify_failure(sql: &Sql, error: &postgres::Error, was_sent: bool) -> StatementFailure {
    let code = error.code().map_or("", SqlState::code);
    // A pooler also reports the loss of its server as an ERROR: of class 08, or without PostgreSQL's field `routine`.
    let is_from_postgres = error
        .as_db_error()
        .is_some_and(|error| error.routine().is_some());
    let is_error = severity(error) == Some(Severity::Error);
    let is_rolled_back = is_error && is_from_postgres && !code.starts_with("08");
    let (effect, cause) = match code {
        "57P05" => (Effect::NotApplied, Cause::EndedIdle),
        "25006" => (Effect::NotApplied, Cause::ReadOnly),
        _ if is_rolled_back => (Effect::NotApplied, Cause::Statement),
        _ if !was_sent => (Effect::NotApplied, Cause::Lost),
        _ => (Effect::MaybeApplied, Cause::Lost),
    };
    let error = match classify(sql, error) {
        Error::Unavailable(reason) if effect == Effect::MaybeApplied => {
            sql.kind.no_response(reason)
        }
        error => error,
    };
    StatementFailure {
        error,
        effect,
        cause,
    }
}

fn severity(error: &postgres::Error) -> Option<Severity> {
    error.as_db_error().and_then(DbError::parsed_severity)
}
