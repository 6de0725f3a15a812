//! How many handlers began a moment ago. Knows no requests.
use std::time::{Duration, Instant};

/// The length of a slice of time. Handlers that began in this one or in the one before are young.
pub const SLICE: Duration = Duration::from_millis(5);

/// Counts the young handlers, in slices of time.
pub struct Pace {
    /// Those that began in this slice, and in the one before.
    young: [usize; 2],
    slice: u64,
    slice_began: Instant,
}

/// When a handler began.
pub struct Beginning(u64);

impl Pace {
    /// No handler began yet.
    pub fn new(now: Instant) -> Pace {
        Pace {
            young: [0, 0],
            slice: 0,
            slice_began: now,
        }
    }

    /// How many are young.
    pub fn young(&mut self, now: Instant) -> usize {
        self.turn(now);
        self.young.iter().sum()
    }

    /// One more begins.
    pub fn begin(&mut self) -> Beginning {
        self.young[0] += 1;
        Beginning(self.slice)
    }

    /// One ends.
    pub fn end(&mut self, beginning: &Beginning) {
        match self.slice - beginning.0 {
            0 => self.young[0] -= 1,
            1 => self.young[1] -= 1,
            _ => {}
        }
    }

    /// Begins another slice once this one is over.
    fn turn(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.slice_began);
        if elapsed < SLICE {
            return;
        }
        let [latest, _] = self.young;
        let is_next = elapsed < 2 * SLICE;
        self.young = [0, if is_next { latest } else { 0 }];
        self.slice += if is_next { 1 } else { 2 };
        self.slice_began = now;
    }
}
