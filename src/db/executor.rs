//! Runs statements: checks a session out of the right pool, waits with a deadline, decides what is run again after a
//! failure, and what the failure means for the other sessions.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postgres::Row;

use super::coalescer::Effect;
use super::connect::ConnectionConfig;
use super::error::Error;
use super::pool::SessionPool;
use super::session::{AbandonedCount, Cause, Parameters, Session, StatementFailure};
use super::write_limit::{MAX_STALLED, WriteLimit};
use super::{Kind, Sql, Timeouts};

/// How much longer than the server's own statement_timeout the result of a statement is waited for.
pub const GRACE: Duration = Duration::from_millis(500);

/// A statement whose caller has less time left is not sent: missing the deadline would cost its session.
const MIN_STATEMENT_TIME: Duration = Duration::from_millis(100);

/// A server counts as frozen if a statement has waited for this long and no other statement has returned meanwhile.
const FROZEN_TIMEOUT: Duration = Duration::from_secs(3);

/// Writes have the fourth part of DB_POOL_SIZE, at least one session: each kind of write runs one batch at a time.
const WRITE_DIVISOR: u32 = 4;

/// While the server rejects writes, the sessions for writes are replaced this often at most: a replacement may be on
/// another server.
const READ_ONLY_INTERVAL: Duration = Duration::from_secs(1);

/// The two pools, and what is known of the server behind them. All threads share one.
pub struct Executor {
    reads: SessionPool,
    writes: SessionPool,
    write_limit: Arc<WriteLimit>,
    timeouts: Timeouts,
    started: Instant,
    /// When the server last responded to anything, in milliseconds since `started`.
    last_response: AtomicU64,
    read_outages: OutageLog,
    write_outages: OutageLog,
}

impl Executor {
    /// Opens `pool_size` sessions in the background, at least one of each kind.
    pub fn new(connection: &ConnectionConfig, pool_size: u32, timeouts: Timeouts) -> Executor {
        let write_size = (pool_size / WRITE_DIVISOR).max(1);
        let read_size = pool_size.saturating_sub(write_size).max(1);
        let read_settings = format!(
            "-c statement_timeout={} -c plan_cache_mode=force_generic_plan",
            timeouts.statement.as_millis()
        );
        let lock_timeout = timeouts.lock.as_millis();
        let write_settings = format!("{read_settings} -c lock_timeout={lock_timeout}");
        let pool = |settings: &str, size: u32, max_stalled: usize| {
            // All sessions of a pool may hang in a frozen server while as many are opened on another. The pools are
            // counted separately, so that hanging writes cost reads nothing.
            let max_abandoned = 2 * (size as usize + max_stalled);
            let connector = connection.connector(settings);
            SessionPool::new(connector, size, max_abandoned, timeouts.checkout)
        };
        Executor {
            reads: pool(&read_settings, read_size, 0),
            writes: pool(&write_settings, write_size, MAX_STALLED),
            write_limit: Arc::default(),
            timeouts,
            started: Instant::now(),
            last_response: AtomicU64::new(0),
            read_outages: OutageLog::new("reads"),
            write_outages: OutageLog::new("writes"),
        }
    }

    /// Runs the statement, and returns its rows by the deadline.
    ///
    /// # Errors
    /// The failure, with whether the statement may have been applied all the same.
    pub fn run(
        &self,
        sql: Sql,
        parameters: &Parameters,
        deadline: Instant,
    ) -> Result<Vec<Row>, StatementFailure> {
        let (pool, outages) = match sql.kind {
            Kind::Read => (&self.reads, &self.read_outages),
            Kind::Write => (&self.writes, &self.write_outages),
        };
        let rows = self.run_with_retries(pool, sql, parameters, deadline);
        outages.record(rows.as_ref().err().map(|failure| &failure.error));
        rows
    }

    fn run_with_retries(
        &self,
        pool: &SessionPool,
        sql: Sql,
        parameters: &Parameters,
        deadline: Instant,
    ) -> Result<Vec<Row>, StatementFailure> {
        let deadline = deadline.min(Instant::now() + self.timeouts.statement + GRACE);
        // Every session of the pool may have ended while it was idle.
        let mut idle_ends_left = pool.size() + 1;
        let mut may_repeat = true;
        loop {
            if sql.kind == Kind::Write {
                self.write_limit
                    .check()
                    .map_err(StatementFailure::not_sent)?;
            }
            let session = pool.check_out(deadline);
            let mut session = session.map_err(StatementFailure::not_sent)?;
            if deadline.saturating_duration_since(Instant::now()) < MIN_STATEMENT_TIME {
                let error = Error::Unavailable("the request has no time left".to_owned());
                return Err(StatementFailure::not_sent(error));
            }
            let running = (sql.kind == Kind::Write).then(|| self.write_limit.start());
            let sent = Instant::now();
            let failure = match session.query(sql, parameters, running, deadline) {
                Ok(rows) => {
                    self.record_response();
                    return Ok(rows);
                }
                Err(failure) => failure,
            };
            self.record_failure(&failure, &mut session, sent);
            let is_replaced = !session.is_usable;
            // Returns it to the pool before another is checked out.
            drop(session);
            match (failure.cause, failure.effect) {
                (Cause::EndedIdle, _) if idle_ends_left > 0 => idle_ends_left -= 1,
                (Cause::ReadOnly, _) if may_repeat && is_replaced => may_repeat = false,
                (Cause::Lost, Effect::NotApplied) if may_repeat => may_repeat = false,
                (Cause::Lost, _) if may_repeat && sql.kind == Kind::Read => may_repeat = false,
                _ => return Err(failure),
            }
        }
    }

    /// Replaces the sessions that this failure says are of no use.
    fn record_failure(&self, failure: &StatementFailure, session: &mut Session, sent: Instant) {
        match failure.cause {
            Cause::Statement => self.record_response(),
            Cause::EndedIdle => {}
            Cause::ReadOnly => {
                self.record_response();
                // If a session that was just opened is read-only, no server takes writes now.
                if session.opened.elapsed() > READ_ONLY_INTERVAL {
                    self.writes.invalidate_sessions();
                    session.is_usable = false;
                }
            }
            Cause::Lost => {
                self.reads.invalidate_sessions();
                self.writes.invalidate_sessions();
            }
            Cause::Hung => self.record_timeout(sent),
        }
    }

    /// Records that a statement sent at this time has timed out. If the server is frozen, replaces all sessions and no
    /// longer counts the writes that hang there.
    pub fn record_timeout(&self, sent: Instant) {
        let is_frozen = sent.elapsed() >= FROZEN_TIMEOUT
            && self.last_response.load(Ordering::Relaxed) <= self.to_millis(sent);
        if is_frozen {
            log::warn!("the database server does not respond: all connections to it are replaced");
            self.reads.invalidate_sessions();
            self.writes.invalidate_sessions();
            self.write_limit.clear();
        }
    }

    /// Records that the server has responded to a statement.
    pub fn record_response(&self) {
        self.last_response
            .store(self.to_millis(Instant::now()), Ordering::Relaxed);
    }

    fn to_millis(&self, instant: Instant) -> u64 {
        let millis = instant.saturating_duration_since(self.started).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX)
    }

    /// Returns the state of both pools together.
    pub fn pool_state(&self) -> PoolState {
        let (reads, writes) = (self.reads.state(), self.writes.state());
        let abandoned =
            [&self.reads, &self.writes].map(|pool| pool.abandoned.load(Ordering::Relaxed));
        PoolState {
            size: self.reads.size() + self.writes.size(),
            open: reads.connections + writes.connections,
            idle: reads.idle_connections + writes.idle_connections,
            stalled_writes: self.write_limit.stalled(),
            abandoned: abandoned.iter().sum(),
        }
    }

    /// Returns the count for a session outside the pools that only reads.
    pub fn abandoned_reads(&self) -> &AbandonedCount {
        &self.reads.abandoned
    }
}

/// The number of sessions at a moment.
#[derive(Clone, Copy, Default)]
pub struct PoolState {
    /// The maximum.
    pub size: u32,
    /// Open sessions, in use or not.
    pub open: u32,
    /// Open sessions that are not in use.
    pub idle: u32,
    /// Writes that the server has not answered for more than a second.
    pub stalled_writes: usize,
    /// Sessions that still wait for the server though their callers no longer do.
    pub abandoned: usize,
}

/// An outage is over once no statement has failed for this long.
const OUTAGE_END: Duration = Duration::from_secs(10);

/// Logs outages of reads, or of writes: a line when statements begin to fail because the database is unavailable, and one
/// when they have succeeded again for a while.
struct OutageLog {
    /// "reads" or "writes".
    class: &'static str,
    is_outage: AtomicBool,
    last_failure: Mutex<Instant>,
}

impl OutageLog {
    fn new(class: &'static str) -> OutageLog {
        OutageLog {
            class,
            is_outage: AtomicBool::new(false),
            last_failure: Mutex::new(Instant::now()),
        }
    }

    /// Records the end of a statement. Takes the lock only in an outage.
    fn record(&self, error: Option<&Error>) {
        match error {
            Some(error) if error.is_outage() => {
                *self.last_failure.lock() = Instant::now();
                if !self.is_outage.swap(true, Ordering::Relaxed) {
                    log::warn!("{}: {error}", self.class);
                }
            }
            _ if self.is_outage.load(Ordering::Relaxed) => {
                let is_over = self.last_failure.lock().elapsed() > OUTAGE_END;
                if is_over && self.is_outage.swap(false, Ordering::Relaxed) {
                    log::info!("{}: the database is available again", self.class);
                }
            }
            _ => {}
        }
    }
}
