//! Combines concurrent calls into one: callers that submit an input while a run is in flight share the next run.
//!
//! A caller puts its input into the queue. If no run stands in the way, it becomes the leader: it takes what is queued,
//! runs it, hands every waiter its output and passes the lead on. A caller that is alone runs a batch of one and waits
//! for nobody. Knows no SQL and no pool, and has no threads of its own.
//!
//! An input that cannot get a lock fails alone: the batch that it blocked is run again input by input, and inputs of its
//! group are run apart from all others until one of them succeeds or [`ISOLATION`] has passed.
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::timings::{self, Timings};

/// How long inputs of a group that could not get a lock are run apart.
const ISOLATION: Duration = Duration::from_secs(2);

/// Runs of isolated inputs at once; a further isolated input fails at once.
const MAX_ISOLATED_RUNS: usize = 1;

/// Groups that may prove to be blocked while a batch is run input by input. Then the rest is run as one batch: where that
/// is blocked, too, what it waits for is no single row.
const MAX_BLOCKED_GROUPS: usize = 2;

/// A caller with less time than this does not become the leader: a run that it gives up is lost for the whole batch. More
/// than a write waits for a lock, so that such a wait ends by the server's answer.
const MIN_LEAD_TIME: Duration = Duration::from_millis(1500);

/// The limits of a batch and of what runs at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Inputs in one batch, at least 1; with 1 every caller runs its own.
    pub max_batch: usize,
    /// Inputs that are worth a run beside one that is in flight, at least 1; fewer wait for its end.
    pub min_batch: usize,
    /// Runs in flight at once, at least 1.
    pub max_in_flight: usize,
    /// How long a run may be in flight until the next one no longer waits for it.
    pub stall_timeout: Duration,
}

/// What a caller submits.
pub trait Input: Send + 'static {
    /// Inputs of one group may wait for the same lock.
    fn group(&self) -> i64;

    /// Whether one run can take both.
    fn may_join(&self, _other: &Self) -> bool {
        true
    }
}

/// The caller's deadline passed. Its input may have been used, or be used later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

/// How a run fails.
pub trait Failure: Clone + From<TimedOut> {
    /// Whether one input alone may be the cause, so that the others are worth another try without it.
    fn may_concern_one_input(&self) -> bool;

    /// Whether a lock was not to be had in time.
    fn is_blocked(&self) -> bool;
}

/// A failed run, and whether it may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError<F> {
    /// No input was applied.
    NotApplied(F),
    /// All inputs may have been applied, or be applied later: nothing is run again.
    MaybeApplied(F),
}

impl<F> RunError<F> {
    fn into_failure(self) -> F {
        match self {
            RunError::NotApplied(failure) | RunError::MaybeApplied(failure) => failure,
        }
    }
}

/// One output for each input, in their order, by the given deadline. All inputs are applied or none.
type Run<I, O, F> = dyn Fn(&[I], Instant) -> Result<Vec<O>, RunError<F>> + Send + Sync;

/// A queue of inputs in front of the function that runs them.
pub struct Coalescer<I, O, F> {
    limits: Limits,
    run: Box<Run<I, O, F>>,
    state: Mutex<State<I, Result<O, F>>>,
}

struct State<I, R> {
    waiting: VecDeque<Waiter<I, R>>,
    /// Runs in flight with their numbers and starts, without those that stalled.
    in_flight: Vec<(u64, Instant)>,
    next_number: u64,
    /// Groups that could not get a lock, and until when each is isolated.
    blocked: Vec<(i64, Instant)>,
    isolated_runs: usize,
}

impl<I, R> State<I, R> {
    /// The number of a new run of so many inputs, if one may start.
    fn start_run(&mut self, inputs: usize, limits: &Limits) -> Option<u64> {
        self.in_flight
            .retain(|(_, start)| start.elapsed() < limits.stall_timeout);
        let is_alone = self.in_flight.is_empty();
        if self.in_flight.len() >= limits.max_in_flight || !is_alone && inputs < limits.min_batch {
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.in_flight.push((number, Instant::now()));
        Some(number)
    }

    fn is_blocked(&mut self, group: i64) -> bool {
        if self.blocked.is_empty() {
            return false;
        }
        let now = Instant::now();
        self.blocked.retain(|(_, until)| *until > now);
        self.blocked.iter().any(|(blocked, _)| *blocked == group)
    }

    /// Isolates a group, or ends its isolation.
    fn set_blocked(&mut self, group: i64, is_blocked: bool) {
        self.blocked.retain(|(blocked, _)| *blocked != group);
        if is_blocked {
            self.blocked.push((group, Instant::now() + ISOLATION));
        }
    }
}

/// An input, and where its caller waits for the result.
type Waiter<I, R> = (I, Arc<Slot<I, R>>);

struct Slot<I, R> {
    outcome: Mutex<Outcome<I, R>>,
    changed: Condvar,
}

enum Outcome<I, R> {
    Pending,
    /// The caller is to lead the run of this number, whose first input is its own.
    Lead(u64, I),
    /// The result, and the time that its run took.
    Done(R, Timings),
}

impl<I: Input, O, F: Failure> Coalescer<I, O, F> {
    /// An empty queue in front of `run`.
    pub fn new(
        limits: Limits,
        run: impl Fn(&[I], Instant) -> Result<Vec<O>, RunError<F>> + Send + Sync + 'static,
    ) -> Coalescer<I, O, F> {
        Coalescer {
            limits,
            run: Box::new(run),
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                in_flight: Vec::new(),
                next_number: 0,
                blocked: Vec::new(),
                isolated_runs: 0,
            }),
        }
    }

    /// Returns the output for this input.
    ///
    /// # Errors
    /// The input's own failure, its run's, or [`TimedOut`] at the deadline.
    pub fn submit(&self, input: I, deadline: Instant) -> Result<O, F> {
        if self.limits.max_batch == 1 {
            return self
                .run_one(&[input], deadline)
                .map_err(RunError::into_failure);
        }
        let mut state = lock(&self.state);
        if state.is_blocked(input.group()) {
            return self.run_isolated(state, &[input], deadline);
        }
        let slot = Arc::new(Slot {
            outcome: Mutex::new(Outcome::Pending),
            changed: Condvar::new(),
        });
        let inputs = state.waiting.len() + 1;
        match state.start_run(inputs, &self.limits) {
            Some(number) => self.lead(number, (input, Arc::clone(&slot)), state, deadline),
            None => {
                state.waiting.push_back((input, Arc::clone(&slot)));
                drop(state);
            }
        }
        loop {
            let outcome = slot.wait(deadline.min(Instant::now() + self.limits.stall_timeout));
            let now = Instant::now();
            match outcome {
                Outcome::Done(result, spent) => {
                    timings::add(spent);
                    return result;
                }
                Outcome::Lead(number, _) if deadline < now + MIN_LEAD_TIME => {
                    drop(LeaderGuard {
                        coalescer: self,
                        number,
                    });
                    return Err(TimedOut.into());
                }
                Outcome::Lead(number, input) => {
                    let first = (input, Arc::clone(&slot));
                    self.lead(number, first, lock(&self.state), deadline);
                }
                Outcome::Pending if now >= deadline => return self.leave(&slot),
                Outcome::Pending => self.lead_past_stalled(&slot, deadline),
            }
        }
    }

    /// How many inputs wait for the next run.
    pub fn waiting(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    fn run_one(&self, input: &[I], deadline: Instant) -> Result<O, RunError<F>> {
        let mut outputs = (self.run)(input, deadline)?;
        outputs
            .pop()
            .ok_or_else(|| RunError::MaybeApplied(TimedOut.into()))
    }

    /// Runs one input of a blocked group, beside the batches of the others.
    fn run_isolated(
        &self,
        mut state: MutexGuard<State<I, Result<O, F>>>,
        input: &[I],
        deadline: Instant,
    ) -> Result<O, F> {
        if state.isolated_runs >= MAX_ISOLATED_RUNS {
            return Err(TimedOut.into());
        }
        state.isolated_runs += 1;
        drop(state);
        let isolated = IsolatedRun(self);
        let result = self
            .run_one(input, deadline)
            .map_err(RunError::into_failure);
        self.note_lock(input, &result);
        drop(isolated);
        result
    }

    /// Isolates the group of an input that could not get a lock; ends the isolation of one that could.
    fn note_lock(&self, input: &[I], result: &Result<O, F>) {
        for input in input {
            match result {
                Err(failure) if failure.is_blocked() => {
                    lock(&self.state).set_blocked(input.group(), true);
                }
                Ok(_) => lock(&self.state).set_blocked(input.group(), false),
                Err(_) => {}
            }
        }
    }

    /// Gives up waiting. A result or a lead that was handed over at the last moment is not lost.
    fn leave(&self, slot: &Arc<Slot<I, Result<O, F>>>) -> Result<O, F> {
        let mut state = lock(&self.state);
        state
            .waiting
            .retain(|(_, waiting)| !Arc::ptr_eq(waiting, slot));
        drop(state);
        match slot.take() {
            Outcome::Done(result, spent) => {
                timings::add(spent);
                result
            }
            Outcome::Lead(number, _) => {
                drop(LeaderGuard {
                    coalescer: self,
                    number,
                });
                Err(TimedOut.into())
            }
            Outcome::Pending => Err(TimedOut.into()),
        }
    }

    /// Leads if this caller is still queued and the run before it has stalled.
    fn lead_past_stalled(&self, slot: &Arc<Slot<I, Result<O, F>>>, deadline: Instant) {
        if deadline < Instant::now() + MIN_LEAD_TIME {
            return;
        }
        let mut state = lock(&self.state);
        let position = state
            .waiting
            .iter()
            .position(|(_, waiting)| Arc::ptr_eq(waiting, slot));
        let inputs = state.waiting.len();
        if let Some(position) = position
            && let Some(number) = state.start_run(inputs, &self.limits)
            && let Some(first) = state.waiting.remove(position)
        {
            self.lead(number, first, state, deadline);
        }
    }

    /// Runs one batch of this caller's input and of what is queued, then passes the lead on to the longest waiting.
    fn lead(
        &self,
        number: u64,
        (input, slot): Waiter<I, Result<O, F>>,
        mut state: MutexGuard<State<I, Result<O, F>>>,
        deadline: Instant,
    ) {
        let mut inputs = vec![input];
        let mut slots = vec![slot];
        let mut left = VecDeque::new();
        for (input, slot) in state.waiting.drain(..) {
            let may_join = |taken: &I| taken.may_join(&input);
            if inputs.len() < self.limits.max_batch && inputs.iter().all(may_join) {
                inputs.push(input);
                slots.push(slot);
            } else {
                left.push_back((input, slot));
            }
        }
        state.waiting = left;
        // If `run` panics, dropping this still passes the lead on; the waiters of its batch time out.
        let guard = LeaderGuard {
            coalescer: self,
            number,
        };
        drop(state);
        let (outputs, spent) = timings::measure(|| (self.run)(&inputs, deadline));
        // The next batch starts while the outputs of this one are handed out.
        drop(guard);
        match outputs {
            Ok(outputs) => hand_out(&slots, outputs, spent),
            Err(RunError::NotApplied(failure))
                if failure.may_concern_one_input() && inputs.len() > 1 =>
            {
                self.run_apart(inputs, slots, &failure, deadline);
            }
            Err(error) => {
                if let RunError::NotApplied(failure) = &error {
                    self.note_lock(&inputs, &Err(failure.clone()));
                }
                let failure = error.into_failure();
                for slot in &slots {
                    slot.put(Outcome::Done(Err(failure.clone()), spent));
                }
            }
        }
    }

    /// Runs the inputs of a batch that was not applied one by one, or in a smaller batch. None that may have been applied
    /// is run again.
    fn run_apart(
        &self,
        inputs: Vec<I>,
        slots: Vec<Arc<Slot<I, Result<O, F>>>>,
        failure: &F,
        deadline: Instant,
    ) {
        let mut blocked: Vec<i64> = Vec::new();
        let (mut rest, mut rest_slots) = (Vec::new(), Vec::new());
        for (input, slot) in inputs.into_iter().zip(slots) {
            let group = input.group();
            if blocked.contains(&group) || deadline < Instant::now() + MIN_LEAD_TIME {
                slot.put(Outcome::Done(Err(failure.clone()), Timings::default()));
            } else if blocked.len() >= MAX_BLOCKED_GROUPS {
                rest.push(input);
                rest_slots.push(slot);
            } else {
                let input = [input];
                let run = || {
                    self.run_one(&input, deadline)
                        .map_err(RunError::into_failure)
                };
                let (result, spent) = timings::measure(run);
                self.note_lock(&input, &result);
                if matches!(&result, Err(failure) if failure.is_blocked()) {
                    blocked.push(group);
                }
                slot.put(Outcome::Done(result, spent));
            }
        }
        if rest.is_empty() {
            return;
        }
        let (outputs, spent) = timings::measure(|| (self.run)(&rest, deadline));
        let failure = match outputs {
            Ok(outputs) => return hand_out(&rest_slots, outputs, spent),
            Err(error) => error.into_failure(),
        };
        for slot in rest_slots {
            slot.put(Outcome::Done(Err(failure.clone()), spent));
        }
    }
}

/// Gives each waiter its output.
fn hand_out<I, O, F>(slots: &[Arc<Slot<I, Result<O, F>>>], outputs: Vec<O>, spent: Timings) {
    for (slot, output) in slots.iter().zip(outputs) {
        slot.put(Outcome::Done(Ok(output), spent));
    }
}

/// The lead of one run; dropping it passes the lead on.
struct LeaderGuard<'a, I, O, F> {
    coalescer: &'a Coalescer<I, O, F>,
    number: u64,
}

impl<I, O, F> Drop for LeaderGuard<'_, I, O, F> {
    fn drop(&mut self) {
        let mut state = lock(&self.coalescer.state);
        let before = state.in_flight.len();
        state.in_flight.retain(|(number, _)| *number != self.number);
        if state.in_flight.len() == before {
            // It had stalled, and another run has its place.
            return;
        }
        // Started here, so that a caller that comes before the new leader wakes does not lead in its place.
        let inputs = state.waiting.len();
        if inputs > 0
            && let Some(number) = state.start_run(inputs, &self.coalescer.limits)
            && let Some((input, slot)) = state.waiting.pop_front()
        {
            slot.put(Outcome::Lead(number, input));
        }
    }
}

/// An isolated run that is counted while it lives.
struct IsolatedRun<'a, I, O, F>(&'a Coalescer<I, O, F>);

impl<I, O, F> Drop for IsolatedRun<'_, I, O, F> {
    fn drop(&mut self) {
        lock(&self.0.state).isolated_runs -= 1;
    }
}

impl<I, R> Slot<I, R> {
    fn put(&self, outcome: Outcome<I, R>) {
        *lock(&self.outcome) = outcome;
        self.changed.notify_one();
    }

    /// What was put, or `Pending` when the time is over.
    fn wait(&self, until: Instant) -> Outcome<I, R> {
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

    fn take(&self) -> Outcome<I, R> {
        std::mem::replace(&mut *lock(&self.outcome), Outcome::Pending)
    }
}

/// What is behind these locks is whole between any two statements, so one that a panic poisoned is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
