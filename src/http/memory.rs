//! The memory that the bodies of all requests and the untaken rests of all responses share.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::counters::Counters;
use super::limits::Limits;
use super::refusal::Refusal;

/// A reservation of up to this many bytes succeeds whatever the others hold, so that small requests are served while
/// others fill the memory slowly.
const ALWAYS_GRANTED_BYTES: usize = 16 * 1024;

/// The budget of all connections together.
pub struct MemoryBudget {
    limit_bytes: u64,
    reserved_bytes: AtomicU64,
    counters: Arc<Counters>,
}

impl MemoryBudget {
    /// A budget of [`Limits::bodies_bytes`], shown in [`Counters::body_bytes`].
    pub fn new(limits: &Limits, counters: Arc<Counters>) -> MemoryBudget {
        MemoryBudget {
            limit_bytes: to_u64(limits.bodies_bytes),
            reserved_bytes: AtomicU64::new(0),
            counters,
        }
    }
}

/// One connection's part of the budget, which it returns when it is dropped.
pub struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl Reservation {
    /// Reserves nothing yet.
    pub fn new(budget: Arc<MemoryBudget>) -> Reservation {
        Reservation { budget, bytes: 0 }
    }

    /// Grows to `held_bytes`; it never shrinks.
    ///
    /// # Errors
    /// 503 if `held_bytes` is more than is always granted, and the budget is exceeded with it.
    pub fn grow_to(&mut self, held_bytes: usize) -> Result<(), Refusal> {
        let more = to_u64(held_bytes).saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        self.bytes += more;
        let before = self
            .budget
            .reserved_bytes
            .fetch_add(more, Ordering::Relaxed);
        let shown = &self.budget.counters.body_bytes;
        shown.fetch_add(more, Ordering::Relaxed);
        if held_bytes > ALWAYS_GRANTED_BYTES && before + more > self.budget.limit_bytes {
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    /// Returns all of it to the budget.
    pub fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            let budget = &self.budget;
            budget.reserved_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let shown = &budget.counters.body_bytes;
            shown.fetch_sub(bytes, Ordering::Relaxed);
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
