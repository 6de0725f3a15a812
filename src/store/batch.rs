//! Group reads and writes: requests that come while a statement runs are answered together by the next. Generic over
//! key and row; knows no SQL, no pool and no threads but its callers'.
//!
//! A caller puts its key into the queue. If no batch runs, it becomes the leader: it takes what is queued, runs it,
//! hands every waiter its row and passes the lead on. Alone, a caller is a batch of one and waits for nobody.
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::trace::{self, Spent};

/// The bounds of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Keys in one batch at the most, from 1, with which every caller runs its own.
    pub size: usize,
    /// How long a caller waits for its row, in the queue and in the batch together.
    pub deadline: Duration,
    /// How long a batch may run until the next one no longer waits for it: its leader hangs in the database.
    pub patience: Duration,
}

/// The caller's deadline ran out. Its key may have been used all the same, or be used later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

/// How a batch fails.
pub trait Failure: Clone + From<TimedOut> {
    /// Whether one key alone may be to blame, so that its neighbours are worth another try without it.
    fn blames_one(&self) -> bool;
}

/// A queue in front of one statement, with a row or a failure for each key.
pub struct Batch<K, R, F> {
    limits: Limits,
    state: Mutex<State<K, Result<R, F>>>,
}

struct State<K, O> {
    waiting: VecDeque<(K, Arc<Seat<O>>)>,
    /// When the newest running batch began; none runs without one.
    running: Option<Instant>,
    /// Which batch is the newest, so that one that was given up does not end its successor.
    generation: u64,
}

/// Where a caller waits for its outcome.
struct Seat<O> {
    outcome: Mutex<Outcome<O>>,
    changed: Condvar,
}

enum Outcome<O> {
    Pending,
    /// The caller is to lead the next batch, its own key among it.
    Lead,
    /// With what its batch spent on it.
    Done(O, Spent),
}

impl<K, R, F: Failure> Batch<K, R, F> {
    /// An empty queue.
    pub fn new(limits: Limits) -> Batch<K, R, F> {
        Batch {
            limits,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                running: None,
                generation: 0,
            }),
        }
    }

    /// The row for this key. `run` gives one outcome for each key, in their order, or fails as a whole; whoever leads
    /// runs its own for all. A batch that failed by the fault of one key is run again, one by one. `may_join` tells
    /// whether a key can be in one batch with those taken before it; one that cannot waits for the next.
    ///
    /// # Errors
    /// The key's own failure, its batch's, or [`TimedOut`].
    pub fn submit(
        &self,
        key: K,
        may_join: impl Fn(&[K], &K) -> bool,
        run: impl Fn(&[K]) -> Result<Vec<Result<R, F>>, F>,
    ) -> Result<R, F> {
        if self.limits.size == 1 {
            let mut outcomes = run(&[key])?;
            return outcomes.pop().unwrap_or_else(|| Err(TimedOut.into()));
        }
        let deadline = Instant::now() + self.limits.deadline;
        let seat = Arc::new(Seat {
            outcome: Mutex::new(Outcome::Pending),
            changed: Condvar::new(),
        });
        let mut state = lock(&self.state);
        state.waiting.push_back((key, Arc::clone(&seat)));
        if state.running.is_none() {
            self.lead(state, &may_join, &run);
        } else {
            drop(state);
        }
        loop {
            let now = Instant::now();
            match seat.wait(deadline.min(now + self.limits.patience)) {
                Outcome::Done(outcome, spent) => {
                    trace::add(spent);
                    return outcome;
                }
                Outcome::Lead => self.lead(lock(&self.state), &may_join, &run),
                Outcome::Pending if now < deadline => self.lead_past_hung(&seat, &may_join, &run),
                Outcome::Pending => return self.leave(&seat),
            }
        }
    }

    /// How many keys wait for the next batch.
    pub fn waiting(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    /// Gives up waiting. What was handed over at the last moment is not lost: neither a row nor the lead.
    fn leave(&self, seat: &Arc<Seat<Result<R, F>>>) -> Result<R, F> {
        let mut state = lock(&self.state);
        state
            .waiting
            .retain(|(_, waiting)| !Arc::ptr_eq(waiting, seat));
        let generation = state.generation;
        drop(state);
        match seat.take() {
            Outcome::Done(outcome, spent) => {
                trace::add(spent);
                outcome
            }
            Outcome::Lead => {
                drop(Lead {
                    state: &self.state,
                    generation,
                });
                Err(TimedOut.into())
            }
            Outcome::Pending => Err(TimedOut.into()),
        }
    }

    /// Leads in place of a leader that hangs, if this caller is still queued behind it.
    fn lead_past_hung(
        &self,
        seat: &Arc<Seat<Result<R, F>>>,
        may_join: &impl Fn(&[K], &K) -> bool,
        run: &impl Fn(&[K]) -> Result<Vec<Result<R, F>>, F>,
    ) {
        let state = lock(&self.state);
        let hangs = state
            .running
            .is_none_or(|began| began.elapsed() >= self.limits.patience);
        if hangs
            && state
                .waiting
                .iter()
                .any(|(_, waiting)| Arc::ptr_eq(waiting, seat))
        {
            self.lead(state, may_join, run);
        }
    }

    /// Runs one batch of what is queued, then passes the lead on to whoever waits longest.
    fn lead(
        &self,
        mut state: MutexGuard<State<K, Result<R, F>>>,
        may_join: &impl Fn(&[K], &K) -> bool,
        run: &impl Fn(&[K]) -> Result<Vec<Result<R, F>>, F>,
    ) {
        let mut keys = Vec::new();
        let mut seats = Vec::new();
        let mut left = VecDeque::new();
        for (key, seat) in state.waiting.drain(..) {
            if keys.len() < self.limits.size && may_join(&keys, &key) {
                keys.push(key);
                seats.push(seat);
            } else {
                left.push_back((key, seat));
            }
        }
        state.waiting = left;
        state.running = Some(Instant::now());
        state.generation += 1;
        // If `run` panics, dropping this still passes the lead on; the seats of its batch time out.
        let lead = Lead {
            state: &self.state,
            generation: state.generation,
        };
        drop(state);
        let (outcomes, spent) = trace::measure(|| run(&keys));
        // The next batch starts while this one's rows are handed out.
        drop(lead);
        match outcomes {
            Ok(outcomes) => {
                for (seat, outcome) in seats.iter().zip(outcomes) {
                    seat.put(Outcome::Done(outcome, spent));
                }
            }
            Err(failure) if keys.len() > 1 && failure.blames_one() => {
                for (key, seat) in keys.chunks(1).zip(&seats) {
                    let (outcomes, spent) = trace::measure(|| run(key));
                    let alone = outcomes.and_then(|mut outcomes| {
                        outcomes.pop().unwrap_or_else(|| Err(failure.clone()))
                    });
                    seat.put(Outcome::Done(alone, spent));
                }
            }
            Err(failure) => {
                for seat in &seats {
                    seat.put(Outcome::Done(Err(failure.clone()), spent));
                }
            }
        }
    }
}

/// The lead of one batch; dropping it passes it on.
struct Lead<'a, K, O> {
    state: &'a Mutex<State<K, O>>,
    generation: u64,
}

impl<K, O> Drop for Lead<'_, K, O> {
    fn drop(&mut self) {
        let mut state = lock(self.state);
        if state.generation != self.generation {
            return;
        }
        state.running = None;
        if let Some((_, seat)) = state.waiting.front() {
            let seat = Arc::clone(seat);
            // Whoever comes before the new leader wakes must not lead beside it.
            state.running = Some(Instant::now());
            seat.put(Outcome::Lead);
        }
    }
}

impl<O> Seat<O> {
    fn put(&self, outcome: Outcome<O>) {
        *lock(&self.outcome) = outcome;
        self.changed.notify_one();
    }

    /// What was put; pending at the end of the time.
    fn wait(&self, until: Instant) -> Outcome<O> {
        let mut outcome = lock(&self.outcome);
        while matches!(*outcome, Outcome::Pending) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.changed.wait_timeout(outcome, left);
            outcome = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::replace(&mut *outcome, Outcome::Pending)
    }

    fn take(&self) -> Outcome<O> {
        std::mem::replace(&mut *lock(&self.outcome), Outcome::Pending)
    }
}

/// What is behind these locks is whole between any two statements, so one that a panic poisoned is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
