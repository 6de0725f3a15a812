//! Limits what writes that hang can hold. A commit that waits for a synchronous standby that died, or for a full disk,
//! ends by no timeout of the server's; each takes a session, and on the server a process.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::Error;

/// A write that has been running for longer has stalled.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Stalled writes past which no other is sent. Each kind of write (create, update, delete, register) has one batch or
/// statement in flight at a time until it stalls: a hiccup of a second may stall one of each, which must refuse nothing.
pub const MAX_STALLED: usize = 5;

/// The writes that run, whether their callers still wait for them or not.
#[derive(Default)]
pub struct WriteLimit {
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    /// By the number of each.
    starts: BTreeMap<u64, Instant>,
    next_number: u64,
}

/// A write that runs. It ends when this is dropped, by the thread that the statement runs on.
pub struct RunningWrite {
    limit: Arc<WriteLimit>,
    number: u64,
}

impl WriteLimit {
    /// Refuses a write if too many have stalled.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub fn check(&self) -> Result<(), Error> {
        let stalled = self.stalled();
        if stalled >= MAX_STALLED {
            let reason = format!("{stalled} writes wait for the server without an answer");
            return Err(Error::Unavailable(reason));
        }
        Ok(())
    }

    /// Counts a write from now on.
    pub fn start(self: &Arc<Self>) -> RunningWrite {
        let mut running = self.lock();
        let number = running.next_number;
        running.next_number += 1;
        running.starts.insert(number, Instant::now());
        RunningWrite {
            limit: Arc::clone(self),
            number,
        }
    }

    /// How many writes have stalled.
    pub fn stalled(&self) -> usize {
        let is_stalled = |start: &&Instant| start.elapsed() > STALL_TIMEOUT;
        self.lock().starts.values().filter(is_stalled).count()
    }

    /// Counts the writes that run now no longer: their server is frozen, and others are sent to another.
    pub fn forget(&self) {
        self.lock().starts.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RunningWrite {
    fn drop(&mut self) {
        let mut running = self.limit.lock();
        running.starts.remove(&self.number);
    }
}
