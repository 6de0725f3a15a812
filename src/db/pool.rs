//! A pool of sessions: r2d2 keeps them, this decides which of them may still be used.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use r2d2::event::{CheckoutEvent, TimeoutEvent};
use r2d2::{HandleEvent, ManageConnection, Pool, PooledConnection};

use super::database::{Database, Unreachable};
use super::error::Error;
use super::session::{AbandonedCount, Session};
use crate::telemetry::metrics;
use crate::telemetry::timings;

/// How long a request waits for a session while none can be opened: the database is away, and the pool keeps trying.
const AWAY_TIMEOUT: Duration = Duration::from_millis(200);

/// Opens sessions.
pub struct Manager {
    database: Database,
    settings: String,
    /// Whether the last attempt to open one succeeded.
    is_reachable: Arc<AtomicBool>,
    has_told_pooler: AtomicBool,
    abandoned: AbandonedCount,
    max_abandoned: usize,
}

impl Manager {
    /// Opens sessions on this database with these settings in the form of the server's command line. None is opened
    /// while `max_abandoned` are counted in `abandoned`.
    pub fn new(
        database: Database,
        settings: String,
        abandoned: AbandonedCount,
        max_abandoned: usize,
    ) -> Manager {
        Manager {
            database,
            settings,
            is_reachable: Arc::new(AtomicBool::new(true)),
            has_told_pooler: AtomicBool::new(false),
            abandoned,
            max_abandoned,
        }
    }
}

impl ManageConnection for Manager {
    type Connection = Session;
    type Error = Unreachable;

    fn connect(&self) -> Result<Session, Unreachable> {
        let opened = if self.abandoned.load(Ordering::Relaxed) < self.max_abandoned {
            self.database.connect(&self.settings)
        } else {
            Err(Unreachable::for_now(
                "too many sessions wait for a server without an answer",
            ))
        };
        self.is_reachable.store(opened.is_ok(), Ordering::Relaxed);
        let opened = opened?;
        if !opened.keeps_state && !self.has_told_pooler.swap(true, Ordering::Relaxed) {
            log::info!(
                "the database is behind a pooler that keeps nothing between transactions: statements are not \
                 prepared, and what bounds them are the role's own statement_timeout and lock_timeout"
            );
        }
        Session::start(opened, &self.abandoned)
    }

    /// Not asked: whether a session has ended is noticed when it is used.
    fn is_valid(&self, _: &mut Session) -> Result<(), Unreachable> {
        Ok(())
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        !session.is_open()
    }
}

/// Counts how long sessions were waited for; called by the thread that waited.
#[derive(Debug)]
struct Waits;

impl HandleEvent for Waits {
    fn handle_checkout(&self, event: CheckoutEvent) {
        metrics::count_checkout(event.duration());
        timings::record_pool_wait(event.duration());
    }

    fn handle_timeout(&self, event: TimeoutEvent) {
        metrics::count_checkout_timeout();
        timings::record_pool_wait(event.timeout());
    }
}

/// Sessions of one kind.
pub struct SessionPool {
    pool: Pool<Manager>,
    is_reachable: Arc<AtomicBool>,
    checkout_timeout: Duration,
    /// Sessions that were opened before are closed instead of used.
    trusted_since: Mutex<Instant>,
}

/// The pool's sessions at a moment.
#[derive(Clone, Copy, Default)]
pub struct PoolState {
    /// At most.
    pub size: u32,
    /// Open ones.
    pub open: u32,
    /// Open ones that nobody uses.
    pub idle: u32,
}

impl SessionPool {
    /// A pool of at most `size` sessions, which are opened in the background.
    pub fn new(manager: Manager, size: u32, checkout_timeout: Duration) -> SessionPool {
        let is_reachable = Arc::clone(&manager.is_reachable);
        SessionPool {
            pool: Pool::builder()
                .max_size(size)
                .connection_timeout(checkout_timeout)
                // Asking first would double the round trips.
                .test_on_check_out(false)
                .error_handler(Box::new(r2d2::NopErrorHandler))
                .event_handler(Box::new(Waits))
                .build_unchecked(manager),
            is_reachable,
            checkout_timeout,
            trusted_since: Mutex::new(Instant::now()),
        }
    }

    /// A session that may be used.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if none is free by the deadline, or within the checkout timeout.
    pub fn check_out(&self, deadline: Instant) -> Result<PooledConnection<Manager>, Error> {
        let deadline = deadline.min(Instant::now() + self.checkout_timeout);
        loop {
            let mut left = deadline.saturating_duration_since(Instant::now());
            if !self.is_reachable.load(Ordering::Relaxed) {
                left = left.min(AWAY_TIMEOUT);
            }
            let session = self.pool.get_timeout(left);
            let mut session = session.map_err(|error| Error::Unavailable(error.to_string()))?;
            if session.opened() >= self.trusted_since() {
                return Ok(session);
            }
            // Dropped, it is closed, and the pool opens another.
            session.condemn();
        }
    }

    /// No session that is open now is used again.
    pub fn distrust(&self) {
        *self.lock() = Instant::now();
    }

    /// Since when sessions are trusted.
    pub fn trusted_since(&self) -> Instant {
        *self.lock()
    }

    /// How many sessions there are at most. Takes no lock.
    pub fn size(&self) -> u32 {
        self.pool.max_size()
    }

    /// How many sessions there are, and how many of them are free.
    pub fn state(&self) -> PoolState {
        let state = self.pool.state();
        PoolState {
            size: self.size(),
            open: state.connections,
            idle: state.idle_connections,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.trusted_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
