//! Group reads and writes: requests that come while a statement runs are answered together by the next. Generic over
//! key and row; knows no SQL, no pool and no threads but its callers'.
//!
//! A caller puts its key into the queue. If a lane is free, it becomes the leader: it takes what is queued, runs it,
//! hands every waiter its row and passes the lane on. Alone, a caller is a batch of one and waits for nobody.
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::trace::{self, Spent};

/// The bounds of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Keys in one batch at the most, from 1, with which every caller runs its own.
    pub size: usize,
    /// Batches that run at once at the most, from 1.
    pub lanes: usize,
    /// Keys that are worth a batch beside one that runs, from 1; fewer wait for its end.
    pub worthwhile: usize,
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
    waiting: VecDeque<Caller<K, O>>,
    /// The batches that run, or are about to, each with its number and when it began; not those that were given up.
    running: Vec<(u64, Instant)>,
    /// How many batches there were: the next one's number.
    count: u64,
}

impl<K, O> State<K, O> {
    /// A lane for one more batch of so many keys, which has this number, if there is one. Batches that hang are given up.
    fn take_lane(&mut self, keys: usize, limits: &Limits) -> Option<u64> {
        self.running
            .retain(|(_, began)| began.elapsed() < limits.patience);
        let is_alone = self.running.is_empty();
        if self.running.len() >= limits.lanes || !is_alone && keys < limits.worthwhile {
            return None;
        }
        let number = self.count;
        self.count += 1;
        self.running.push((number, Instant::now()));
        Some(number)
    }
}

/// A key, and where its caller waits for the outcome.
type Caller<K, O> = (K, Arc<Seat<K, O>>);

struct Seat<K, O> {
    outcome: Mutex<Outcome<K, O>>,
    changed: Condvar,
}

enum Outcome<K, O> {
    Pending,
    /// The caller is to lead the batch of this number, which begins with its own key.
    Lead(u64, K),
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
                running: Vec::new(),
                count: 0,
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
        let caller = (key, Arc::clone(&seat));
        let mut state = lock(&self.state);
        let keys = state.waiting.len() + 1;
        match state.take_lane(keys, &self.limits) {
            Some(number) => self.lead(number, caller, state, &may_join, &run),
            None => {
                state.waiting.push_back(caller);
                drop(state);
            }
        }
        loop {
            let now = Instant::now();
            match seat.wait(deadline.min(now + self.limits.patience)) {
                Outcome::Done(outcome, spent) => {
                    trace::add(spent);
                    return outcome;
                }
                Outcome::Lead(number, key) => {
                    let caller = (key, Arc::clone(&seat));
                    self.lead(number, caller, lock(&self.state), &may_join, &run);
                }
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
    fn leave(&self, seat: &Arc<Seat<K, Result<R, F>>>) -> Result<R, F> {
        let mut state = lock(&self.state);
        state
            .waiting
            .retain(|(_, waiting)| !Arc::ptr_eq(waiting, seat));
        drop(state);
        match seat.take() {
            Outcome::Done(outcome, spent) => {
                trace::add(spent);
                outcome
            }
            Outcome::Lead(number, _) => {
                drop(Lead {
                    batch: self,
                    number,
                });
                Err(TimedOut.into())
            }
            Outcome::Pending => Err(TimedOut.into()),
        }
    }

    /// Leads in place of a leader that hangs, if this caller is still queued behind it.
    fn lead_past_hung(
        &self,
        seat: &Arc<Seat<K, Result<R, F>>>,
        may_join: &impl Fn(&[K], &K) -> bool,
        run: &impl Fn(&[K]) -> Result<Vec<Result<R, F>>, F>,
    ) {
        let mut state = lock(&self.state);
        let place = state
            .waiting
            .iter()
            .position(|(_, waiting)| Arc::ptr_eq(waiting, seat));
        let keys = state.waiting.len();
        if let Some(place) = place
            && let Some(number) = state.take_lane(keys, &self.limits)
            && let Some(caller) = state.waiting.remove(place)
        {
            self.lead(number, caller, state, may_join, run);
        }
    }

    /// Runs one batch of this caller's key and what is queued, then passes its lane on to whoever waits longest.
    fn lead(
        &self,
        number: u64,
        (key, seat): Caller<K, Result<R, F>>,
        mut state: MutexGuard<State<K, Result<R, F>>>,
        may_join: &impl Fn(&[K], &K) -> bool,
        run: &impl Fn(&[K]) -> Result<Vec<Result<R, F>>, F>,
    ) {
        let mut keys = vec![key];
        let mut seats = vec![seat];
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
        // If `run` panics, dropping this still passes the lead on; the seats of its batch time out.
        let lead = Lead {
            batch: self,
            number,
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

/// The lead of one batch; dropping it passes its lane on.
struct Lead<'a, K, R, F> {
    batch: &'a Batch<K, R, F>,
    number: u64,
}

impl<K, R, F> Drop for Lead<'_, K, R, F> {
    fn drop(&mut self) {
        let mut state = lock(&self.batch.state);
        let before = state.running.len();
        state.running.retain(|(number, _)| *number != self.number);
        if state.running.len() == before {
            // It was given up, and another has its lane.
            return;
        }
        // Taken here, so that whoever comes before the new leader wakes does not lead in its place.
        let keys = state.waiting.len();
        if keys > 0
            && let Some(number) = state.take_lane(keys, &self.batch.limits)
            && let Some((key, seat)) = state.waiting.pop_front()
        {
            seat.put(Outcome::Lead(number, key));
        }
    }
}

impl<K, O> Seat<K, O> {
    fn put(&self, outcome: Outcome<K, O>) {
        *lock(&self.outcome) = outcome;
        self.changed.notify_one();
    }

    /// What was put; pending at the end of the time.
    fn wait(&self, until: Instant) -> Outcome<K, O> {
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

    fn take(&self) -> Outcome<K, O> {
        std::mem::replace(&mut *lock(&self.outcome), Outcome::Pending)
    }
}

/// What is behind these locks is whole between any two statements, so one that a panic poisoned is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
