//! The permits of handlers, and the requests that wait for one. Knows no sockets.
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rouille::Request;

use super::counters::{Counters, show};
use super::table::Key;

/// A request waits at most this many times `shed_after` itself.
const LONGEST_WAIT: u32 = 5;

/// A request that was read whole.
pub struct Ready {
    /// The connection to answer on, which is held in the table.
    pub key: Key,
    /// What to answer.
    pub request: Request,
    /// When it was read.
    pub since: Instant,
}

/// What becomes of a request.
pub enum Admission {
    /// The caller has a permit now and runs its handler.
    Run(Ready),
    /// It waits; the worker that has time for it takes it.
    Queued,
    /// Others wait too long already.
    Shed(Ready),
}

/// At most `permits` handlers run; the others wait in the order in which they came.
pub struct Queue {
    permits: usize,
    shed_after: Duration,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    waiting: VecDeque<Ready>,
}

impl Queue {
    /// For so many handlers at once.
    pub fn new(permits: usize, shed_after: Duration, counters: Arc<Counters>) -> Queue {
        Queue {
            permits,
            shed_after,
            counters,
            state: Mutex::default(),
        }
    }

    /// Asks for a permit.
    pub fn admit(&self, ready: Ready) -> Admission {
        let mut state = self.lock();
        if state.running < self.permits {
            state.running += 1;
            show(&self.counters.in_flight, state.running);
            return Admission::Run(ready);
        }
        let oldest = state.waiting.front();
        if oldest.is_some_and(|oldest| {
            ready.since.saturating_duration_since(oldest.since) > self.shed_after
        }) {
            return Admission::Shed(ready);
        }
        state.waiting.push_back(ready);
        show(&self.counters.queued, state.waiting.len());
        Admission::Queued
    }

    /// Gives a permit to the request that waited longest. Without one, the permit is given back.
    pub fn finish(&self) -> Option<Ready> {
        let mut state = self.lock();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.running -= 1;
            show(&self.counters.in_flight, state.running);
        } else {
            show(&self.counters.queued, state.waiting.len());
        }
        next
    }

    /// Puts a request behind those that wait, and gives the caller's permit to the first of them all: a client that
    /// sends ahead gets no more than its turn.
    pub fn exchange(&self, ready: Ready) -> Ready {
        let mut state = self.lock();
        match state.waiting.pop_front() {
            Some(oldest) => {
                state.waiting.push_back(ready);
                oldest
            }
            None => ready,
        }
    }

    /// Takes those out that nobody should let wait any longer: the newer half once the oldest has waited too long,
    /// and each that has waited much too long itself.
    pub fn shed(&self, now: Instant) -> Vec<Ready> {
        let mut state = self.lock();
        let is_past =
            |ready: &Ready, wait: Duration| now.saturating_duration_since(ready.since) > wait;
        let longest = self.shed_after.saturating_mul(LONGEST_WAIT);
        let stale = state
            .waiting
            .iter()
            .take_while(|ready| is_past(ready, longest))
            .count();
        let mut shed: Vec<_> = state.waiting.drain(..stale).collect();
        let oldest = state.waiting.front();
        if oldest.is_some_and(|oldest| is_past(oldest, self.shed_after)) {
            let kept = state.waiting.len().div_ceil(2);
            shed.extend(state.waiting.drain(kept..));
        }
        show(&self.counters.queued, state.waiting.len());
        shed
    }

    /// Whether no handler runs and no request waits.
    pub fn is_empty(&self) -> bool {
        let state = self.lock();
        state.running == 0 && state.waiting.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
