//! Limits the number of writes that hang. A commit that waits for a lost synchronous standby or for a full disk is ended by
//! no timeout of the server's; each holds a session here and a process on the server.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::Error;

/// A write that has been running for longer has stalled.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of stalled writes from which no other is sent. Each kind of write (create, update, delete, register) has one
/// batch or statement in flight at a time until it stalls: a pause of a second may stall one of each, which must not
/// cause an error.
pub const MAX_STALLED: usize = 5;

/// The writes that are running, even if their callers no longer wait for them.
#[derive(Default)]
pub struct WriteLimit {
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    /// When each started, by its number.
    starts: BTreeMap<u64, Instant>,
    next_number: u64,
}

/// A running write. The session's thread drops it when the statement returns.
pub struct RunningWrite {
    limit: Arc<WriteLimit>,
    number: u64,
}

impl WriteLimit {
    /// # Errors
    /// [`Error::Unavailable`] if too many writes have stalled.
    pub fn check(&self) -> Result<(), Error> {
        let stalled = self.stalled();
        if stalled >= MAX_STALLED {
            let reason = format!("{stalled} writes wait for the server, which does not respond");
            return Err(Error::Unavailable(reason));
        }
        Ok(())
    }

    /// Counts a write until the result is dropped.
    pub fn start(self: &Arc<Self>) -> RunningWrite {
        let mut running = self.running.lock();
        let number = running.next_number;
        running.next_number += 1;
        running.starts.insert(number, Instant::now());
        RunningWrite {
            limit: Arc::clone(self),
            number,
        }
    }

    /// Returns how many writes have stalled.
    pub fn stalled(&self) -> usize {
        let is_stalled = |start: &&Instant| start.elapsed() > STALL_TIMEOUT;
        let running = self.running.lock();
        running.starts.values().filter(is_stalled).count()
    }

    /// Stops counting the writes that are running now: their server is frozen, and later writes go to another session.
    pub fn clear(&self) {
        self.running.lock().starts.clear();
    }
}

impl Drop for RunningWrite {
    fn drop(&mut self) {
        self.limit.running.lock().starts.remove(&self.number);
    }
}
