//! Combines concurrent calls into one: the inputs that callers submit while a run is in flight share the next run.
//!
//! A caller appends its input to the queue. If another run may start, the caller becomes its leader: it takes the queued
//! inputs as one batch, runs it, gives each waiter its output, and makes the longest waiter the next leader. A caller
//! that is alone runs a batch of one without waiting. Decodes nothing, knows no SQL and no pool, and has no threads of its
//! own: everything runs on the callers' threads.
//!
//! A waiter's slot goes through these states:
//!
//! ```text
//! Pending --(a leader ran its batch)--> Done
//!    |                                   ^
//!    +--(a run ended)--> Lead --(runs)---+
//! ```
//!
//! An input that cannot get a lock fails alone: a batch that is blocked is run again input by input, and the inputs of a
//! blocked group are run apart from all others until one of them succeeds or [`ISOLATION`] has passed.
//!
//! Locks: one for the queue and one for each slot. A slot's lock may be taken under the queue's, not the reverse. `run` is
//! called without locks.
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::telemetry::timings::{self, Timings};

/// How long the inputs of a group that could not get a lock are run apart.
const ISOLATION: Duration = Duration::from_secs(2);

/// The number of isolated inputs that may run at the same time. A further one fails at once.
const MAX_ISOLATED_RUNS: usize = 1;

/// The number of groups that may prove to be blocked while a batch is run input by input. Then the rest is run as one
/// batch: the lock is probably not on single rows, and the other inputs would wait for it one after the other.
const MAX_BLOCKED_GROUPS: usize = 2;

/// A caller with less time left does not become the leader, since a run that misses its deadline is lost for the whole
/// batch. Longer than the lock timeout of writes, so that a leader receives the server's error.
const MIN_LEAD_TIME: Duration = Duration::from_millis(1500);

/// The limits of a batch, and of runs at the same time.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// The maximum number of inputs of a batch, at least 1. With 1 each caller runs its own input.
    pub max_batch: usize,
    /// The number of inputs that justify a run beside another one in flight, at least 1. Fewer inputs wait for its end.
    pub min_batch: usize,
    /// The maximum number of runs in flight, at least 1.
    pub max_in_flight: usize,
    /// How long a run may take until it no longer counts as in flight, so that the next one does not wait for it.
    pub stall_timeout: Duration,
}

/// What a caller submits.
pub trait Input: Send + 'static {
    /// Returns the group. Inputs of the same group may wait for the same lock.
    fn group(&self) -> i64;

    /// Whether one run can take both inputs.
    fn may_join(&self, _other: &Self) -> bool {
        true
    }
}

/// The caller's deadline passed. Its input may have been run, or be run later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

/// What the coalescer needs to know of the error of a run.
pub trait BatchFailure: Clone + From<TimedOut> {
    /// Whether a single input may be the cause, so that the others may succeed without it.
    fn may_concern_one_input(&self) -> bool;

    /// Whether the run could not get a lock in time.
    fn is_blocked(&self) -> bool;
}

/// What is known of the effect of a run that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No input was applied.
    NotApplied,
    /// All inputs may have been applied, or be applied later. Nothing is run again.
    MaybeApplied,
}

/// Returns one output for each input, in their order, by the given deadline. It applies all inputs or none.
type Run<I, O, F> = dyn Fn(&[I], Instant) -> Result<Vec<O>, (F, Effect)> + Send + Sync;

/// A queue of inputs in front of the function that runs them.
pub struct Coalescer<I, O, F> {
    limits: BatchLimits,
    run: Box<Run<I, O, F>>,
    queue: Mutex<Queue<I, Result<O, F>>>,
}

/// Read and written by all callers, under the lock of [`Coalescer::queue`].
struct Queue<I, R> {
    waiting: VecDeque<Waiter<I, R>>,
    /// The number and the start of each run in flight. Runs that stalled are no longer in it.
    in_flight: Vec<(u64, Instant)>,
    next_number: u64,
    /// Groups that could not get a lock, and until when each is isolated.
    blocked: Vec<(i64, Instant)>,
    isolated_runs: usize,
}

impl<I, R> Queue<I, R> {
    /// Returns the number of a new run with this many inputs, or `None` if it may not start now.
    fn start_run(&mut self, inputs: usize, limits: &BatchLimits) -> Option<u64> {
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

/// An input, and the slot at which its caller waits.
type Waiter<I, R> = (I, Arc<Slot<I, R>>);

struct Slot<I, R> {
    state: Mutex<SlotState<I, R>>,
    changed: Condvar,
}

enum SlotState<I, R> {
    Pending,
    /// The caller must lead the run of this number. The first input of its batch is the caller's own.
    Lead(u64, I),
    /// The result, and the time spent on its run.
    Done(R, Timings),
}

impl<I: Input, O, F: BatchFailure> Coalescer<I, O, F> {
    /// Creates an empty queue in front of `run`.
    pub fn new(
        limits: BatchLimits,
        run: impl Fn(&[I], Instant) -> Result<Vec<O>, (F, Effect)> + Send + Sync + 'static,
    ) -> Coalescer<I, O, F> {
        Coalescer {
            limits,
            run: Box::new(run),
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                in_flight: Vec::new(),
                next_number: 0,
                blocked: Vec::new(),
                isolated_runs: 0,
            }),
        }
    }

    /// Waits for the output of this input, alone or in a batch.
    ///
    /// # Errors
    /// The error of the input or of its run, or [`TimedOut`] at the deadline.
    pub fn submit(&self, input: I, deadline: Instant) -> Result<O, F> {
        if self.limits.max_batch == 1 {
            return self.run_one(&[input], deadline);
        }
        let mut queue = self.queue.lock();
        if queue.is_blocked(input.group()) {
            return self.run_isolated(queue, &[input], deadline);
        }
        let slot = Arc::new(Slot {
            state: Mutex::new(SlotState::Pending),
            changed: Condvar::new(),
        });
        let inputs = queue.waiting.len() + 1;
        match queue.start_run(inputs, &self.limits) {
            Some(number) => self.lead(number, (input, Arc::clone(&slot)), queue, deadline),
            None => {
                queue.waiting.push_back((input, Arc::clone(&slot)));
                drop(queue);
            }
        }
        loop {
            let mut state = slot.wait(deadline.min(Instant::now() + self.limits.stall_timeout));
            let now = Instant::now();
            let is_late = now >= deadline;
            if is_late && matches!(state, SlotState::Pending) {
                let is_other = |waiter: &Waiter<_, _>| !Arc::ptr_eq(&waiter.1, &slot);
                self.queue.lock().waiting.retain(is_other);
                // A result or a lead may have come at the last moment.
                state = slot.wait(now);
            }
            match state {
                SlotState::Done(result, timings) => {
                    timings::add(timings);
                    return result;
                }
                SlotState::Lead(number, _) if deadline < now + MIN_LEAD_TIME => {
                    drop(LeaderGuard {
                        coalescer: self,
                        number,
                    });
                    return Err(TimedOut.into());
                }
                SlotState::Lead(number, input) => {
                    let first = (input, Arc::clone(&slot));
                    self.lead(number, first, self.queue.lock(), deadline);
                }
                SlotState::Pending if is_late => return Err(TimedOut.into()),
                SlotState::Pending => self.lead_past_stalled(&slot, deadline),
            }
        }
    }

    /// Returns how many inputs wait for the next run.
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    fn run_one(&self, input: &[I], deadline: Instant) -> Result<O, F> {
        let outputs = (self.run)(input, deadline).map_err(|(failure, _)| failure);
        outputs?.pop().ok_or_else(|| TimedOut.into())
    }

    /// Runs one input of a blocked group, beside the batches of the other groups.
    fn run_isolated(
        &self,
        mut queue: MutexGuard<Queue<I, Result<O, F>>>,
        input: &[I],
        deadline: Instant,
    ) -> Result<O, F> {
        if queue.isolated_runs >= MAX_ISOLATED_RUNS {
            return Err(TimedOut.into());
        }
        queue.isolated_runs += 1;
        drop(queue);
        let _isolated = IsolatedRun(self);
        let result = self.run_one(input, deadline);
        self.record_lock(input, &result);
        result
    }

    /// Isolates the groups of inputs that could not get a lock; ends the isolation of those that could.
    fn record_lock(&self, inputs: &[I], result: &Result<O, F>) {
        let is_blocked = result.as_ref().is_err_and(F::is_blocked);
        if is_blocked || result.is_ok() {
            for input in inputs {
                self.queue.lock().set_blocked(input.group(), is_blocked);
            }
        }
    }

    /// Becomes the leader if this caller is still queued and the run before it has stalled.
    fn lead_past_stalled(&self, slot: &Arc<Slot<I, Result<O, F>>>, deadline: Instant) {
        if deadline < Instant::now() + MIN_LEAD_TIME {
            return;
        }
        let mut queue = self.queue.lock();
        let position = queue
            .waiting
            .iter()
            .position(|(_, waiting)| Arc::ptr_eq(waiting, slot));
        let inputs = queue.waiting.len();
        if let Some(position) = position
            && let Some(number) = queue.start_run(inputs, &self.limits)
            && let Some(first) = queue.waiting.remove(position)
        {
            self.lead(number, first, queue, deadline);
        }
    }

    /// Runs one batch of this caller's input and the queued inputs, then makes the longest waiter the next leader.
    fn lead(
        &self,
        number: u64,
        (input, slot): Waiter<I, Result<O, F>>,
        mut queue: MutexGuard<Queue<I, Result<O, F>>>,
        deadline: Instant,
    ) {
        let mut inputs = vec![input];
        let mut slots = vec![slot];
        let mut rest = VecDeque::new();
        for (input, slot) in queue.waiting.drain(..) {
            let may_join = |taken: &I| taken.may_join(&input);
            if inputs.len() < self.limits.max_batch && inputs.iter().all(may_join) {
                inputs.push(input);
                slots.push(slot);
            } else {
                rest.push_back((input, slot));
            }
        }
        queue.waiting = rest;
        // Dropped also if `run` panics, so that there is a next leader; the waiters of this batch then time out.
        let guard = LeaderGuard {
            coalescer: self,
            number,
        };
        drop(queue);
        let (outputs, timings) = timings::measure(|| (self.run)(&inputs, deadline));
        // The next batch starts while the waiters of this one get their outputs.
        drop(guard);
        if let Err((failure, Effect::NotApplied)) = &outputs {
            if failure.may_concern_one_input() && inputs.len() > 1 {
                return self.run_separately(inputs, slots, failure, deadline);
            }
            self.record_lock(&inputs, &Err(failure.clone()));
        }
        distribute(&slots, outputs, timings);
    }

    /// Runs the inputs of a batch that was not applied one by one, and the rest of them as one batch once
    /// [`MAX_BLOCKED_GROUPS`] are blocked.
    fn run_separately(
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
                slot.set(SlotState::Done(Err(failure.clone()), Timings::default()));
            } else if blocked.len() >= MAX_BLOCKED_GROUPS {
                rest.push(input);
                rest_slots.push(slot);
            } else {
                let input = [input];
                let (result, timings) = timings::measure(|| self.run_one(&input, deadline));
                self.record_lock(&input, &result);
                if matches!(&result, Err(failure) if failure.is_blocked()) {
                    blocked.push(group);
                }
                slot.set(SlotState::Done(result, timings));
            }
        }
        if !rest.is_empty() {
            let (outputs, timings) = timings::measure(|| (self.run)(&rest, deadline));
            distribute(&rest_slots, outputs, timings);
        }
    }
}

/// Gives each waiter its output, or all of them the failure of their run.
fn distribute<I, O, F: Clone>(
    slots: &[Arc<Slot<I, Result<O, F>>>],
    outputs: Result<Vec<O>, (F, Effect)>,
    timings: Timings,
) {
    match outputs {
        Ok(outputs) => {
            for (slot, output) in slots.iter().zip(outputs) {
                slot.set(SlotState::Done(Ok(output), timings));
            }
        }
        Err((failure, _)) => {
            for slot in slots {
                slot.set(SlotState::Done(Err(failure.clone()), timings));
            }
        }
    }
}

/// The lead of one run. Dropping it ends the run and makes the longest waiter the next leader.
struct LeaderGuard<'a, I, O, F> {
    coalescer: &'a Coalescer<I, O, F>,
    number: u64,
}

impl<I, O, F> Drop for LeaderGuard<'_, I, O, F> {
    fn drop(&mut self) {
        let mut queue = self.coalescer.queue.lock();
        let mut runs = queue.in_flight.iter();
        let Some(position) = runs.position(|(number, _)| *number == self.number) else {
            // The run had stalled, and others have been started since.
            return;
        };
        queue.in_flight.swap_remove(position);
        // Started here and not by the new leader, so that no other caller can lead before it wakes.
        let inputs = queue.waiting.len();
        if inputs > 0
            && let Some(number) = queue.start_run(inputs, &self.coalescer.limits)
            && let Some((input, slot)) = queue.waiting.pop_front()
        {
            slot.set(SlotState::Lead(number, input));
        }
    }
}

/// Counts an isolated run until it is dropped.
struct IsolatedRun<'a, I, O, F>(&'a Coalescer<I, O, F>);

impl<I, O, F> Drop for IsolatedRun<'_, I, O, F> {
    fn drop(&mut self) {
        self.0.queue.lock().isolated_runs -= 1;
    }
}

impl<I, R> Slot<I, R> {
    fn set(&self, state: SlotState<I, R>) {
        *self.state.lock() = state;
        self.changed.notify_one();
    }

    /// Waits for another state than `Pending`, and takes it. Returns `Pending` at the deadline.
    fn wait(&self, deadline: Instant) -> SlotState<I, R> {
        let mut state = self.state.lock();
        while matches!(*state, SlotState::Pending) {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        std::mem::replace(&mut *state, SlotState::Pending)
    }
}
