//! Runs statements: chooses the session, waits with a deadline, decides what is repeated after a failure.
//!
//! Reads and writes have pools of their own, so that writes that hang leave reads their sessions. The sessions for writes
//! wait for locks a short time only ([`Timeouts::lock`]).
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postgres::Row;

use super::database::Database;
use super::error::Error;
use super::outage::OutageLog;
use super::pool::{Manager, PoolState, SessionPool};
use super::session::{AbandonedCount, Cause, Effect, Failure, Parameters, Session};
use super::write_limit::{MAX_STALLED, WriteLimit};
use super::{Kind, Sql, Timeouts};

/// How much longer than the server's own statement_timeout a statement is waited for.
pub const GRACE: Duration = Duration::from_millis(500);

/// A statement with less time left than this is not sent: it would only cost its session.
const MIN_TIME: Duration = Duration::from_millis(100);

/// A server that has answered no statement for this long, while one was waited for, is frozen.
const FROZEN_AFTER: Duration = Duration::from_secs(3);

/// Of DB_POOL_SIZE the part that writes have: a quarter, at least one. Batches need one for each kind of write.
const WRITE_SHARE: u32 = 4;

/// How often the sessions for writes are opened anew while the server takes no writes.
const READ_ONLY_INTERVAL: Duration = Duration::from_secs(1);

/// The two pools, and what is known of the server behind them.
pub struct Executor {
    reads: SessionPool,
    writes: SessionPool,
    write_limit: Arc<WriteLimit>,
    abandoned_reads: AbandonedCount,
    abandoned_writes: AbandonedCount,
    timeouts: Timeouts,
    started: Instant,
    /// When the server last answered anything, in milliseconds since `started`.
    last_answer: AtomicU64,
    read_outages: OutageLog,
    write_outages: OutageLog,
}

impl Executor {
    /// Fills the pools in the background: `pool_size` sessions in all, at least one of each kind.
    pub fn new(database: &Database, pool_size: u32, timeouts: Timeouts) -> Executor {
        let writers = (pool_size / WRITE_SHARE).max(1);
        let readers = pool_size.saturating_sub(writers).max(1);
        let settings = format!(
            "-c statement_timeout={} -c plan_cache_mode=force_generic_plan",
            timeouts.statement.as_millis()
        );
        let write_settings = format!("{settings} -c lock_timeout={}", timeouts.lock.as_millis());
        let (abandoned_reads, abandoned_writes): (AbandonedCount, AbandonedCount) =
            Default::default();
        let pool = |settings, size: u32, abandoned: &AbandonedCount, max_abandoned| {
            let database = database.clone();
            let manager = Manager::new(database, settings, Arc::clone(abandoned), max_abandoned);
            SessionPool::new(manager, size, timeouts.checkout)
        };
        // All sessions may hang in one frozen server while others are opened elsewhere. The pools count apart, so that
        // writes that hang cost reads nothing.
        let twice = |size| {
            usize::try_from(size)
                .unwrap_or(usize::MAX)
                .saturating_mul(2)
        };
        Executor {
            reads: pool(settings, readers, &abandoned_reads, twice(readers)),
            writes: pool(
                write_settings,
                writers,
                &abandoned_writes,
                twice(writers) + 2 * MAX_STALLED,
            ),
            write_limit: Arc::default(),
            abandoned_reads,
            abandoned_writes,
            timeouts,
            started: Instant::now(),
            last_answer: AtomicU64::new(0),
            read_outages: OutageLog::new("reads"),
            write_outages: OutageLog::new("writes"),
        }
    }

    /// The rows of the statement, waited for until the deadline.
    ///
    /// # Errors
    /// The failure, and whether the statement may have been applied all the same.
    pub fn run(
        &self,
        sql: Sql,
        parameters: &Parameters,
        deadline: Instant,
    ) -> Result<Vec<Row>, Failure> {
        let rows = self.try_run(sql, parameters, deadline);
        let outages = match sql.kind {
            Kind::Read => &self.read_outages,
            Kind::Write => &self.write_outages,
        };
        outages.note(rows.as_ref().err().map(|failure| &failure.error));
        rows
    }

    fn try_run(
        &self,
        sql: Sql,
        parameters: &Parameters,
        deadline: Instant,
    ) -> Result<Vec<Row>, Failure> {
        let deadline = deadline.min(Instant::now() + self.timeouts.statement + GRACE);
        let pool = match sql.kind {
            Kind::Read => &self.reads,
            Kind::Write => &self.writes,
        };
        // Every session of the pool may have ended while it was idle.
        let mut idle_ends_left = pool.size() + 1;
        let mut may_repeat = true;
        loop {
            if sql.kind == Kind::Write {
                self.write_limit.check().map_err(Failure::not_sent)?;
            }
            let mut session = pool.check_out(deadline).map_err(Failure::not_sent)?;
            if deadline.saturating_duration_since(Instant::now()) < MIN_TIME {
                let error = Error::Unavailable("the request's time is over".to_owned());
                return Err(Failure::not_sent(error));
            }
            let running = (sql.kind == Kind::Write).then(|| self.write_limit.start());
            let sent = Instant::now();
            let failure = match session.query(sql, parameters, running, deadline) {
                Ok(rows) => {
                    self.note_answer();
                    return Ok(rows);
                }
                Err(failure) => failure,
            };
            self.note_failure(&failure, &mut session, sent);
            let is_condemned = !session.is_open();
            // Given back before another is taken.
            drop(session);
            match (failure.cause, failure.effect) {
                (Cause::EndedIdle, _) if idle_ends_left > 0 => idle_ends_left -= 1,
                (Cause::ReadOnly, _) if may_repeat && is_condemned => may_repeat = false,
                (Cause::Lost, Effect::NotApplied) if may_repeat => may_repeat = false,
                (Cause::Lost, Effect::MaybeApplied) if may_repeat && sql.kind == Kind::Read => {
                    may_repeat = false;
                }
                _ => return Err(failure),
            }
        }
    }

    /// Draws the conclusions of a failure for the other sessions.
    fn note_failure(&self, failure: &Failure, session: &mut Session, sent: Instant) {
        match failure.cause {
            Cause::Statement => self.note_answer(),
            Cause::EndedIdle => {}
            Cause::ReadOnly => {
                self.note_answer();
                // A session that was just opened says so of the only server there is.
                if session.opened().elapsed() > READ_ONLY_INTERVAL {
                    self.writes.distrust();
                    session.condemn();
                }
            }
            Cause::Lost => {
                self.reads.distrust();
                self.writes.distrust();
            }
            Cause::Hung => self.note_silence(sent),
        }
    }

    /// Notes that a statement sent then has had no answer. If none at all came since, for long enough, the server is
    /// frozen: no session that is open now is used again, and the writes that hang there no longer count.
    pub fn note_silence(&self, sent: Instant) {
        let is_frozen = sent.elapsed() >= FROZEN_AFTER
            && self.last_answer.load(Ordering::Relaxed) <= self.to_millis(sent);
        if is_frozen {
            log::warn!("the database server does not answer: its connections are given up");
            self.reads.distrust();
            self.writes.distrust();
            self.write_limit.forget();
        }
    }

    /// Notes that the server answers.
    pub fn note_answer(&self) {
        self.last_answer
            .store(self.to_millis(Instant::now()), Ordering::Relaxed);
    }

    fn to_millis(&self, instant: Instant) -> u64 {
        let millis = instant.saturating_duration_since(self.started).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX)
    }

    /// The two pools together.
    pub fn pool_state(&self) -> PoolState {
        let (reads, writes) = (self.reads.state(), self.writes.state());
        PoolState {
            size: reads.size + writes.size,
            open: reads.open + writes.open,
            idle: reads.idle + writes.idle,
        }
    }

    /// Writes that the server has not answered for too long.
    pub fn stalled_writes(&self) -> usize {
        self.write_limit.stalled()
    }

    /// Sessions whose statement nobody waits for any longer.
    pub fn abandoned_sessions(&self) -> usize {
        let counts = [&self.abandoned_reads, &self.abandoned_writes];
        counts
            .map(|count| count.load(Ordering::Relaxed))
            .iter()
            .sum()
    }

    /// The count to give to a session of one's own that reads.
    pub fn abandoned_count(&self) -> &AbandonedCount {
        &self.abandoned_reads
    }
}
