//! One database session. A thread of its own owns the client and runs one statement at a time; callers wait for each with
//! a deadline, which the synchronous client does not have.
//!
//! A session whose statement passes the caller's deadline is abandoned: the caller goes on without it, and its thread
//! waits until the statement returns, then closes the connection. No cancel request is sent: it would end a commit's wait
//! for its synchronous standby, and so make visible what is not replicated.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use postgres::error::{DbError, Severity, SqlState};
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{Client, Row, Statement};

use super::database::{Opened, Unreachable};
use super::error::{Error, classify};
use super::write_limit::RunningWrite;
use super::{Kind, Sql};
use crate::telemetry::metrics;
use crate::telemetry::timings;

/// A session that was idle for longer is looked at before it is used: what the server sent meanwhile, such as the end of
/// the session, is read.
const IDLE: Duration = Duration::from_millis(10);

/// A statement's parameters. They are owned and shared, since a statement may outlive its caller's wait, and may be run
/// again.
pub type Parameters = Arc<[Box<dyn ToSql + Sync + Send>]>;

/// The parameters in this order, as [`Parameters`].
macro_rules! parameters {
    ($($value:expr),* $(,)?) => {
        ::std::sync::Arc::new([$(
            Box::new($value) as Box<dyn ::postgres::types::ToSql + Sync + Send>
        ),*])
    };
}
pub(super) use parameters;

/// The caller's side of a session.
pub struct Session {
    jobs: SyncSender<Job>,
    answers: Receiver<Answer>,
    abandoned: Arc<Abandoned>,
    opened: Instant,
    is_open: bool,
}

struct Job {
    sql: Sql,
    parameters: Parameters,
    /// Held until the statement returns, whether its caller still waits or not.
    _running: Option<RunningWrite>,
}

struct Answer {
    rows: Result<Vec<Row>, Failure>,
    duration: Duration,
    is_open: bool,
}

/// Why a statement gave no rows.
#[derive(Debug)]
pub struct Failure {
    /// The failure as callers see it.
    pub error: Error,
    /// What happened to the statement.
    pub effect: Effect,
    /// What the failure says about the session.
    pub cause: Cause,
}

/// What is known of a failed statement's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It was not sent, or the server rolled it back.
    NotApplied,
    /// It may have been applied, or be applied later.
    MaybeApplied,
}

/// What a failure says about the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing: it was the statement's own.
    Statement,
    /// The session had ended while it was idle.
    EndedIdle,
    /// The server takes no writes.
    ReadOnly,
    /// The connection was lost.
    Lost,
    /// The server did not answer in time.
    Hung,
}

impl Failure {
    /// A failure before anything was sent.
    pub fn not_sent(error: Error) -> Failure {
        Failure {
            error,
            effect: Effect::NotApplied,
            cause: Cause::Statement,
        }
    }

    fn ended_idle() -> Failure {
        Failure {
            error: Error::Unavailable("the server ended an idle session".to_owned()),
            effect: Effect::NotApplied,
            cause: Cause::EndedIdle,
        }
    }
}

/// How many sessions are abandoned now.
pub type AbandonedCount = Arc<AtomicUsize>;

/// Whether one session is abandoned; counted until its thread ends.
struct Abandoned {
    is_abandoned: AtomicBool,
    count: AbandonedCount,
}

impl Abandoned {
    fn set(&self) {
        if !self.is_abandoned.swap(true, Ordering::AcqRel) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Ends with the session's thread.
struct ThreadGuard(Arc<Abandoned>);

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        // A session that is abandoned from here on has nothing left to wait for.
        if self.0.is_abandoned.swap(true, Ordering::AcqRel) {
            self.0.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Session {
    /// A session on this connection. `count` counts it if it is abandoned.
    ///
    /// # Errors
    /// If the system has no threads left.
    pub fn start(opened: Opened, count: &AbandonedCount) -> Result<Session, Unreachable> {
        let (jobs, taken_jobs) = sync_channel::<Job>(1);
        let (given_answers, answers) = sync_channel(1);
        let abandoned = Arc::new(Abandoned {
            is_abandoned: AtomicBool::new(false),
            count: Arc::clone(count),
        });
        let guard = ThreadGuard(Arc::clone(&abandoned));
        let thread = thread::Builder::new().name("session".to_owned());
        let started = thread.spawn(move || {
            let _guard = guard;
            let mut connection = Connection::new(opened);
            // Ends when the caller's side is dropped.
            for job in taken_jobs {
                let answer = connection.run(&job);
                // The write is over before its caller learns of it.
                drop(job);
                if given_answers.send(answer).is_err() {
                    break;
                }
            }
        });
        started.map_err(Unreachable::for_now)?;
        Ok(Session {
            jobs,
            answers,
            abandoned,
            opened: Instant::now(),
            is_open: true,
        })
    }

    /// When the session was opened.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Whether it may be used again.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whatever comes of it, it is not used again.
    pub fn condemn(&mut self) {
        self.is_open = false;
    }

    /// The rows of the statement, waited for until the deadline; then the session is abandoned. `running` is held until
    /// the statement returns.
    pub fn query(
        &mut self,
        sql: Sql,
        parameters: &Parameters,
        running: Option<RunningWrite>,
        deadline: Instant,
    ) -> Result<Vec<Row>, Failure> {
        let job = Job {
            sql,
            parameters: Arc::clone(parameters),
            _running: running,
        };
        if self.jobs.try_send(job).is_err() {
            self.is_open = false;
            return Err(Failure::ended_idle());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match self.answers.recv_timeout(left) {
            Ok(answer) => {
                self.is_open &= answer.is_open;
                metrics::count_statement(sql.name, answer.duration);
                timings::record_statement(sql.name, answer.duration);
                answer.rows
            }
            Err(end) => {
                self.is_open = false;
                metrics::count_statement(sql.name, left);
                timings::record_statement(sql.name, left);
                let cause = match end {
                    RecvTimeoutError::Timeout => {
                        self.abandoned.set();
                        Cause::Hung
                    }
                    RecvTimeoutError::Disconnected => Cause::Lost,
                };
                let reason = "no answer in time".to_owned();
                Err(Failure {
                    error: match sql.kind {
                        Kind::Read => Error::Unavailable(reason),
                        Kind::Write => Error::Unconfirmed(reason),
                    },
                    effect: Effect::MaybeApplied,
                    cause,
                })
            }
        }
    }
}

/// The thread's side: the client and the statements that were prepared on it.
struct Connection {
    client: Client,
    /// Whether a prepared statement is still there for the next job.
    keeps_state: bool,
    prepared: HashMap<&'static str, Statement>,
    last_used: Instant,
}

impl Connection {
    fn new(opened: Opened) -> Connection {
        Connection {
            client: opened.client,
            keeps_state: opened.keeps_state,
            prepared: HashMap::new(),
            last_used: Instant::now(),
        }
    }

    fn run(&mut self, job: &Job) -> Answer {
        let start = Instant::now();
        let rows = if start.duration_since(self.last_used) > IDLE && self.has_ended() {
            Err(Failure::ended_idle())
        } else {
            self.query(&job.sql, &job.parameters)
        };
        self.last_used = Instant::now();
        let is_open = match &rows {
            Ok(_) => true,
            Err(failure) => {
                let is_answer = matches!(failure.cause, Cause::Statement | Cause::ReadOnly);
                is_answer && !self.client.is_closed()
            }
        };
        Answer {
            rows,
            duration: self.last_used.duration_since(start),
            is_open,
        }
    }

    /// Whether the server ended the session. What it sent is read; nothing is asked.
    fn has_ended(&mut self) -> bool {
        // The timeout, though zero, lets the client's event loop turn once: without it a message that has arrived
        // is not seen.
        let next = self
            .client
            .notifications()
            .timeout_iter(Duration::ZERO)
            .next();
        next.is_err() || self.client.is_closed()
    }

    fn query(&mut self, sql: &Sql, parameters: &Parameters) -> Result<Vec<Row>, Failure> {
        let values: Vec<&(dyn ToSql + Sync)> = parameters
            .iter()
            .map(|value| value.as_ref() as &(dyn ToSql + Sync))
            .collect();
        if !self.keeps_state {
            let typed: Vec<_> = values.into_iter().zip(sql.types.iter().cloned()).collect();
            let rows = self.client.query_typed(sql.text, &typed);
            return rows.map_err(|error| judge(sql, &error, true));
        }
        match self.query_prepared(sql, &values) {
            Err((error, _)) if needs_preparing_again(&error) => {
                self.prepared.remove(sql.name);
                self.query_prepared(sql, &values)
            }
            result => result,
        }
        .map_err(|(error, was_sent)| judge(sql, &error, was_sent))
    }

    /// On failure also whether the statement, not only its preparation, was sent.
    fn query_prepared(
        &mut self,
        sql: &Sql,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, (postgres::Error, bool)> {
        let statement = match self.prepared.get(sql.name) {
            Some(statement) => statement.clone(),
            None => {
                let prepared = self.client.prepare_typed(sql.text, sql.types);
                let statement = prepared.map_err(|error| (error, false))?;
                self.prepared.insert(sql.name, statement.clone());
                statement
            }
        };
        self.client
            .query(&statement, values)
            .map_err(|error| (error, true))
    }
}

/// Whether the statement did not run since what was prepared is gone, or returns other columns than it did: `alter table`
/// changed them (0A000, "cached plan must not change result type"), or `deallocate` or a pooler dropped it (26000).
fn needs_preparing_again(error: &postgres::Error) -> bool {
    const CODES: [SqlState; 2] = [
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INVALID_SQL_STATEMENT_NAME,
    ];
    severity(error) == Some(Severity::Error)
        && error.code().is_some_and(|code| CODES.contains(code))
}

/// What a failure says about the statement and the session.
///
/// An ERROR of the server ends the statement's transaction, which is its own: nothing was applied. So does the end of an
/// idle session, since no statement ran in it. Of any other end nothing is known: a FATAL message may follow the commit.
fn judge(sql: &Sql, error: &postgres::Error, was_sent: bool) -> Failure {
    let code = error.code().map_or("", SqlState::code);
    // A pooler reports the loss of its server as an ERROR, too: of class 08, or without the routine that PostgreSQL names.
    let is_postgres_s = error
        .as_db_error()
        .is_some_and(|error| error.routine().is_some());
    let is_error = severity(error) == Some(Severity::Error);
    let is_rolled_back = is_error && is_postgres_s && !code.starts_with("08");
    let (effect, cause) = match code {
        "57P05" => (Effect::NotApplied, Cause::EndedIdle),
        "25006" => (Effect::NotApplied, Cause::ReadOnly),
        _ if is_rolled_back => (Effect::NotApplied, Cause::Statement),
        _ if !was_sent => (Effect::NotApplied, Cause::Lost),
        _ => (Effect::MaybeApplied, Cause::Lost),
    };
    let error = match classify(sql, error) {
        Error::Unavailable(reason) if effect == Effect::MaybeApplied && sql.kind == Kind::Write => {
            Error::Unconfirmed(reason)
        }
        error => error,
    };
    Failure {
        error,
        effect,
        cause,
    }
}

fn severity(error: &postgres::Error) -> Option<Severity> {
    error.as_db_error().and_then(DbError::parsed_severity)
}
