//! A body's share of the memory for all bodies together. Knows no bodies.
use std::sync::atomic::Ordering;

use super::counters::Counters;
use super::limits::Limits;
use super::refusal::Refusal;

/// So many bytes of the memory that all bodies share; it is given back by hand, since it does not know to whom.
#[derive(Default)]
pub struct Charge(u64);

impl Charge {
    /// Takes more, up to so much; less than before is not noticed.
    ///
    /// # Errors
    /// 503 if all together hold too much then.
    pub fn raise(
        &mut self,
        held_bytes: usize,
        limits: &Limits,
        counters: &Counters,
    ) -> Result<(), Refusal> {
        let more = to_u64(held_bytes).saturating_sub(self.0);
        self.0 += more;
        let before = counters.body_bytes.fetch_add(more, Ordering::Relaxed);
        if more > 0 && before + more > to_u64(limits.bodies_bytes) {
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    /// Gives all back.
    pub fn release(&mut self, counters: &Counters) {
        if self.0 > 0 {
            counters.body_bytes.fetch_sub(self.0, Ordering::Relaxed);
            self.0 = 0;
        }
    }
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
