//! A pool of sessions of one kind. `r2d2` keeps them and opens new ones; [`SessionManager`] says how one is opened and
//! whether it may be used again.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use r2d2::event::{CheckoutEvent, TimeoutEvent};
use r2d2::{HandleEvent, ManageConnection, Pool, PooledConnection};

use super::connect::{ConnectError, Connector};
use super::error::Error;
use super::session::{AbandonedCount, Session};
use crate::telemetry::metrics;
use crate::telemetry::timings;

/// The checkout timeout while the last attempt to open a session has failed. The pool keeps trying in the background.
const UNREACHABLE_CHECKOUT_TIMEOUT: Duration = Duration::from_millis(200);

/// Opens the sessions of a pool, in r2d2's background threads.
pub struct SessionManager {
    connector: Connector,
    /// Whether the last attempt to open a session succeeded.
    is_reachable: Arc<AtomicBool>,
    has_logged_pooler: AtomicBool,
    abandoned: AbandonedCount,
    max_abandoned: usize,
}

impl ManageConnection for SessionManager {
    type Connection = Session;
    type Error = ConnectError;

    fn connect(&self) -> Result<Session, ConnectError> {
        let client = if self.abandoned.load(Ordering::Relaxed) < self.max_abandoned {
            self.connector.connect()
        } else {
            Err(ConnectError::temporary(
                "too many sessions wait for a server that does not respond",
            ))
        };
        self.is_reachable.store(client.is_ok(), Ordering::Relaxed);
        let client = client?;
        if !client.keeps_state && !self.has_logged_pooler.swap(true, Ordering::Relaxed) {
            log::info!(
                "the database is behind a pooler that keeps no state between transactions: statements are not \
                 prepared, and only the role's own statement_timeout and lock_timeout limit them"
            );
        }
        Session::start(client, &self.abandoned)
    }

    /// Never called, since the pool does not test sessions at checkout: a session notices its end when it is used.
    fn is_valid(&self, _: &mut Session) -> Result<(), ConnectError> {
        Ok(())
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        !session.is_usable
    }
}

/// Records the time that threads wait for sessions. r2d2 calls it on the waiting thread.
#[derive(Debug)]
struct CheckoutRecorder;

impl HandleEvent for CheckoutRecorder {
    fn handle_checkout(&self, event: CheckoutEvent) {
        metrics::count_checkout(event.duration());
        timings::record_pool_wait(event.duration());
    }

    fn handle_timeout(&self, event: TimeoutEvent) {
        metrics::count_checkout_timeout();
        timings::record_pool_wait(event.timeout());
    }
}

/// The sessions for reads, or those for writes.
pub struct SessionPool {
    pool: Pool<SessionManager>,
    is_reachable: Arc<AtomicBool>,
    pub abandoned: AbandonedCount,
    checkout_timeout: Duration,
    /// Sessions that were opened before this are closed at checkout. Locked for the time of a copy.
    valid_since: Mutex<Instant>,
}

impl SessionPool {
    /// Creates a pool that opens `size` sessions in the background. It opens none while `max_abandoned` sessions are
    /// abandoned: each holds a thread here and a process there.
    pub fn new(
        connector: Connector,
        size: u32,
        max_abandoned: usize,
        checkout_timeout: Duration,
    ) -> SessionPool {
        let is_reachable = Arc::new(AtomicBool::new(true));
        let abandoned = AbandonedCount::default();
        let manager = SessionManager {
            connector,
            is_reachable: Arc::clone(&is_reachable),
            has_logged_pooler: AtomicBool::new(false),
            abandoned: Arc::clone(&abandoned),
            max_abandoned,
        };
        SessionPool {
            pool: Pool::builder()
                .max_size(size)
                .connection_timeout(checkout_timeout)
                // A test at checkout would double the round trips.
                .test_on_check_out(false)
                .error_handler(Box::new(r2d2::NopErrorHandler))
                .event_handler(Box::new(CheckoutRecorder))
                .build_unchecked(manager),
            is_reachable,
            abandoned,
            checkout_timeout,
            valid_since: Mutex::new(Instant::now()),
        }
    }

    /// Waits for a free session.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if none is free by the deadline, or within the checkout timeout.
    pub fn check_out(&self, deadline: Instant) -> Result<PooledConnection<SessionManager>, Error> {
        let deadline = deadline.min(Instant::now() + self.checkout_timeout);
        loop {
            let mut left = deadline.saturating_duration_since(Instant::now());
            if !self.is_reachable.load(Ordering::Relaxed) {
                left = left.min(UNREACHABLE_CHECKOUT_TIMEOUT);
            }
            let session = self.pool.get_timeout(left);
            let mut session = session.map_err(|error| Error::Unavailable(error.to_string()))?;
            if session.opened >= *self.valid_since.lock() {
                return Ok(session);
            }
            // The pool closes it when it is dropped, and opens another.
            session.is_usable = false;
        }
    }

    /// Closes every session that is open now, at its next checkout.
    pub fn invalidate_sessions(&self) {
        *self.valid_since.lock() = Instant::now();
    }

    /// Returns the maximum number of sessions. Takes no lock.
    pub fn size(&self) -> u32 {
        self.pool.max_size()
    }

    /// Returns the current number of sessions. Takes r2d2's lock.
    pub fn state(&self) -> r2d2::State {
        self.pool.state()
    }
}
