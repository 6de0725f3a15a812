//! The log of outages: one line when statements of a class begin to fail for want of the database, one when they have
//! succeeded again for a while.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::Error;

/// An outage is over once nothing has failed for this long.
const QUIET: Duration = Duration::from_secs(10);

/// The outages of one class of statements.
pub struct OutageLog {
    /// Names the class in the log: "reads", "writes".
    class: &'static str,
    is_away: AtomicBool,
    last_failure: Mutex<Instant>,
}

impl OutageLog {
    /// No outage yet.
    pub fn new(class: &'static str) -> OutageLog {
        OutageLog {
            class,
            is_away: AtomicBool::new(false),
            last_failure: Mutex::new(Instant::now()),
        }
    }

    /// Notes how a statement ended. Costs one load while there is no outage.
    pub fn note(&self, error: Option<&Error>) {
        match error {
            Some(error) if error.is_outage() => {
                *self
                    .last_failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Instant::now();
                if !self.is_away.swap(true, Ordering::Relaxed) {
                    log::warn!("{}: {error}", self.class);
                }
            }
            _ if self.is_away.load(Ordering::Relaxed) => {
                let last_failure = self
                    .last_failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if last_failure.elapsed() > QUIET && self.is_away.swap(false, Ordering::Relaxed) {
                    log::info!("{}: the database answers again", self.class);
                }
            }
            _ => {}
        }
    }
}
