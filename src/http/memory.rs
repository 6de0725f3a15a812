//! The memory that all connections share for request bodies and for unsent rests of responses.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::limits::Limits;
use super::response::HttpError;
use super::stats::Stats;

/// A reservation up to this size succeeds whatever other connections hold, so that small requests are served while others
/// fill the budget slowly.
const ALWAYS_GRANTED_BYTES: usize = 16 * 1024;

/// [`Limits::max_buffered_bytes`] bytes, of which each connection has a [`Reservation`].
pub struct MemoryBudget {
    limit_bytes: u64,
    reserved_bytes: AtomicU64,
    stats: Arc<Stats>,
}

impl MemoryBudget {
    pub fn new(limits: &Limits, stats: Arc<Stats>) -> MemoryBudget {
        MemoryBudget {
            limit_bytes: to_u64(limits.max_buffered_bytes),
            reserved_bytes: AtomicU64::new(0),
            stats,
        }
    }
}

/// One connection's part of the budget, which is returned to it on drop.
pub struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl Reservation {
    /// Creates a reservation of no bytes.
    pub fn new(budget: Arc<MemoryBudget>) -> Reservation {
        Reservation { budget, bytes: 0 }
    }

    /// Grows the reservation to `bytes`, if it is smaller.
    ///
    /// # Errors
    /// [`HttpError::Overloaded`] if the budget is exceeded and the reservation is larger than is always granted.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), HttpError> {
        let more = to_u64(bytes).saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        self.bytes += more;
        let budget = &self.budget;
        let before = budget.reserved_bytes.fetch_add(more, Ordering::Relaxed);
        let gauge = &budget.stats.buffered_bytes;
        gauge.fetch_add(more, Ordering::Relaxed);
        if bytes > ALWAYS_GRANTED_BYTES && before + more > budget.limit_bytes {
            return Err(HttpError::Overloaded);
        }
        Ok(())
    }

    pub fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            let budget = &self.budget;
            budget.reserved_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let gauge = &budget.stats.buffered_bytes;
            gauge.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
