//! Limits what writes that hang can hold. A commit that waits for a synchronous standby that died, or for a full disk,
//! ends by no timeout of the server's; each takes a session, and on the server a process.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::Error;

/// A write that has been running for longer has stalled.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Stalled writes past which no other is sent. Each kind of write (create, update, delete, register) has one batch or
/// statement in flight at a time until it stalls: a hiccup of a second may stall one of each, which must refuse nothing.
const MAX_STALLED: usize = 5;

/// The writes that run, whether their callers still wait for them or not.
#[derive(Default)]
pub struct WriteLimit {
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    starts: Vec<(u64, Instant)>,
    next_number: u64,
}

/// A write that runs. It ends when this is dropped, by the thread that the statement runs on.
pub struct RunningWrite {
    limit: Arc<WriteLimit>,
    number: u64,
}

impl WriteLimit {
    /// Refuses a write if too many have stalled. Those that were sent before `since` do not count: they went to a server
    /// that is no longer used.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub fn check(&self, since: Instant) -> Result<(), Error> {
        let stalled = self.stalled(since);
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
        running.starts.push((number, Instant::now()));
        RunningWrite {
            limit: Arc::clone(self),
            number,
        }
    }

    /// How many writes sent after `since` have stalled.
    pub fn stalled(&self, since: Instant) -> usize {
        let is_stalled =
            |(_, start): &&(u64, Instant)| *start >= since && start.elapsed() > STALL_TIMEOUT;
        self.lock().starts.iter().filter(is_stalled).count()
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RunningWrite {
    fn drop(&mut self) {
        let mut running = self.limit.lock();
        running.starts.retain(|(number, _)| *number != self.number);
    }
}
