//! A connection's share of the memory for all bodies together, of requests and of answers. Knows no bodies.
use std::sync::atomic::Ordering;

use super::counters::Counters;
use super::limits::Limits;
use super::refusal::Refusal;

/// So much is granted whatever the others hold, as a head's bytes are: who asks in few words is served while others fill
/// the memory slowly.
const GRANTED_BYTES: usize = 16 * 1024;

/// So many bytes of the memory that all bodies share; it is given back by hand, since it does not know to whom.
#[derive(Default)]
pub struct Charge(u64);

impl Charge {
    /// Takes more, up to so much; less than before is not noticed.
    ///
    /// # Errors
    /// 503 if it is more than a little, and all together hold too much then.
    pub fn raise(
        &mut self,
        held_bytes: usize,
        limits: &Limits,
        counters: &Counters,
    ) -> Result<(), Refusal> {
        let more = to_u64(held_bytes).saturating_sub(self.0);
        self.0 += more;
        let before = counters.body_bytes.fetch_add(more, Ordering::Relaxed);
        let is_past = before + more > to_u64(limits.bodies_bytes);
        if more > 0 && held_bytes > GRANTED_BYTES && is_past {
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
