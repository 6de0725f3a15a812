//! The coalescer without a database: order of batches, failures, blocked groups, stalled leaders, deadlines.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed one is a failed test

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use movies_api::db::coalescer::{BatchFailure, BatchLimits, Coalescer, Effect, Input, TimedOut};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq)]
enum Failed {
    TimedOut,
    Invalid,
    Blocked,
    Unavailable,
}

impl From<TimedOut> for Failed {
    fn from(_: TimedOut) -> Failed {
        Failed::TimedOut
    }
}

impl BatchFailure for Failed {
    fn may_concern_one_input(&self) -> bool {
        matches!(self, Failed::Invalid | Failed::Blocked)
    }

    fn is_blocked(&self) -> bool {
        *self == Failed::Blocked
    }
}

/// An input that is a group of its own. Two equal ones may not join.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Number(u64);

impl Input for Number {
    fn group(&self) -> i64 {
        i64::try_from(self.0).unwrap()
    }

    fn may_join(&self, other: &Self) -> bool {
        self != other
    }
}

type Outputs = Result<Vec<u64>, (Failed, Effect)>;
type Doubler = Coalescer<Number, u64, Failed>;
/// The batches in the order in which they ran.
type Batches = Arc<Mutex<Vec<Vec<u64>>>>;

const LIMITS: BatchLimits = BatchLimits {
    max_batch: 8,
    min_batch: 1,
    max_in_flight: 1,
    stall_timeout: Duration::from_secs(10),
};

/// A deadline that no test reaches.
fn far_deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn double(inputs: &[Number]) -> Outputs {
    Ok(inputs.iter().map(|Number(number)| number * 2).collect())
}

fn submit(coalescer: &Doubler, number: u64) -> Result<u64, Failed> {
    coalescer.submit(Number(number), far_deadline())
}

/// Blocks each run of the input 0 alone: it sends on `started`, and then waits for a message on `release`.
struct Hold {
    started: Sender<()>,
    release: Mutex<Receiver<()>>,
}

/// Returns a coalescer in front of `run` that holds each run of the input 0 alone; the other batches that ran; the
/// receiver of a message for each held run that starts; and the sender that releases one.
fn make(
    limits: BatchLimits,
    run: impl Fn(&[Number]) -> Outputs + Send + Sync + 'static,
) -> (Doubler, Batches, Receiver<()>, Sender<()>) {
    let (started, has_started) = channel();
    let (release, released) = channel();
    let hold = Hold {
        started,
        release: Mutex::new(released),
    };
    let batches = Arc::new(Mutex::new(Vec::new()));
    let ran = Arc::clone(&batches);
    let coalescer = Coalescer::new(limits, move |inputs: &[Number], _| {
        if inputs == [Number(0)] {
            _ = hold.started.send(());
            _ = hold.release.lock().unwrap().recv();
            return double(inputs);
        }
        let batch = inputs.iter().map(|Number(number)| *number).collect();
        ran.lock().unwrap().push(batch);
        run(inputs)
    });
    (coalescer, batches, has_started, release)
}

/// Polls until the condition holds.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        thread::yield_now();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn each_caller_gets_its_own_output_and_each_input_runs_once(
        callers in 1_usize..12,
        calls in 1_u64..30,
        max_batch in 1_usize..10,
        max_in_flight in 1_usize..4,
        min_batch in 1_usize..6,
    ) {
        let limits = BatchLimits {
            max_batch,
            max_in_flight,
            min_batch,
            ..LIMITS
        };
        let (coalescer, batches, _, _release) = make(limits, double);
        let start = Barrier::new(callers);
        thread::scope(|scope| {
            for caller in 0..callers {
                let (coalescer, start) = (&coalescer, &start);
                scope.spawn(move || {
                    start.wait();
                    for call in 0..calls {
                        let number = u64::try_from(caller).unwrap() * 1000 + call + 1;
                        assert_eq!(submit(coalescer, number), Ok(number * 2));
                    }
                });
            }
        });
        let batches = batches.lock().unwrap();
        prop_assert!(batches.iter().all(|batch| batch.len() <= max_batch));
        let mut ran: Vec<u64> = batches.concat();
        let total = ran.len();
        ran.sort_unstable();
        ran.dedup();
        prop_assert_eq!(ran.len(), total);
        prop_assert_eq!(total as u64, callers as u64 * calls);
    }
}

#[test]
fn single_caller_runs_batch_of_one() {
    let (coalescer, batches, _, _release) = make(LIMITS, double);
    assert_eq!(submit(&coalescer, 21), Ok(42));
    assert_eq!(*batches.lock().unwrap(), [[21]]);
}

/// Queues these inputs in their order behind a held leader, releases it, and returns the results and the batches that
/// ran.
fn run_queued(
    numbers: &[u64],
    run: impl Fn(&[Number]) -> Outputs + Send + Sync + 'static,
) -> (Vec<Result<u64, Failed>>, Vec<Vec<u64>>) {
    let (coalescer, batches, has_started, release) = make(LIMITS, run);
    let queued = AtomicUsize::new(0);
    let results = thread::scope(|scope| {
        let (coalescer, queued) = (&coalescer, &queued);
        scope.spawn(move || submit(coalescer, 0).unwrap());
        has_started.recv().unwrap();
        let callers: Vec<_> = numbers
            .iter()
            .enumerate()
            .map(|(position, number)| {
                scope.spawn(move || {
                    // Each input waits until those before it are queued, which keeps the order.
                    wait_until("queueing", || {
                        queued.load(Ordering::SeqCst) == position && coalescer.waiting() == position
                    });
                    queued.fetch_add(1, Ordering::SeqCst);
                    submit(coalescer, *number)
                })
            })
            .collect();
        wait_until("queueing all", || coalescer.waiting() == numbers.len());
        release.send(()).unwrap();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    });
    let batches = batches.lock().unwrap().clone();
    (results, batches)
}

#[test]
fn inputs_queued_during_a_run_run_together_in_order() {
    let numbers: Vec<u64> = (1..=12).collect();
    let (results, batches) = run_queued(&numbers, double);
    assert_eq!(batches, [(1..=8).collect::<Vec<u64>>(), (9..=12).collect()]);
    assert_eq!(
        results,
        (1..=12).map(|number| Ok(number * 2)).collect::<Vec<_>>()
    );
}

#[test]
fn input_that_may_not_join_waits_for_next_batch() {
    let (_, batches) = run_queued(&[7, 8, 7, 9], double);
    assert_eq!(batches, [vec![7, 8, 9], vec![7]]);
}

#[test]
fn invalid_input_does_not_fail_the_other_inputs_of_its_batch() {
    let (results, batches) = run_queued(&[1, 13, 3], |inputs| {
        if inputs.contains(&Number(13)) {
            return Err((Failed::Invalid, Effect::NotApplied));
        }
        double(inputs)
    });
    assert_eq!(results, [Ok(2), Err(Failed::Invalid), Ok(6)]);
    assert_eq!(batches, [vec![1, 13, 3], vec![1], vec![13], vec![3]]);
}

#[test]
fn batch_that_may_have_been_applied_is_not_run_again() {
    let (results, batches) = run_queued(&[1, 13, 3], |inputs| {
        if inputs.contains(&Number(13)) {
            return Err((Failed::Invalid, Effect::MaybeApplied));
        }
        double(inputs)
    });
    assert_eq!(
        results,
        [
            Err(Failed::Invalid),
            Err(Failed::Invalid),
            Err(Failed::Invalid)
        ]
    );
    assert_eq!(batches, [[1, 13, 3]]);
}

#[test]
fn failure_of_the_whole_batch_is_not_retried() {
    let fail = |_: &[Number]| Err((Failed::Unavailable, Effect::NotApplied));
    let (results, batches) = run_queued(&[1, 2, 3, 4, 5], fail);
    assert_eq!(results, vec![Err(Failed::Unavailable); 5]);
    assert_eq!(batches.len(), 1);
}

/// Returns a `run` for which batches with one of these numbers cannot get a lock.
fn block(blocked: &'static [u64]) -> impl Fn(&[Number]) -> Outputs + Send + Sync {
    move |inputs| {
        if inputs.iter().any(|Number(number)| blocked.contains(number)) {
            return Err((Failed::Blocked, Effect::NotApplied));
        }
        double(inputs)
    }
}

#[test]
fn blocked_input_fails_alone_and_then_runs_apart_from_the_others() {
    let (coalescer, batches, has_started, release) = make(LIMITS, block(&[13]));
    assert_eq!(submit(&coalescer, 13), Err(Failed::Blocked));
    thread::scope(|scope| {
        let coalescer = &coalescer;
        scope.spawn(move || submit(coalescer, 0).unwrap());
        has_started.recv().unwrap();
        let others = [1, 2].map(|number| scope.spawn(move || submit(coalescer, number)));
        wait_until("two wait", || coalescer.waiting() == 2);
        // It is neither queued behind the held run nor part of a batch.
        assert_eq!(submit(coalescer, 13), Err(Failed::Blocked));
        release.send(()).unwrap();
        for (other, output) in others.into_iter().zip([2, 4]) {
            assert_eq!(other.join().unwrap(), Ok(output));
        }
    });
    let mut batches = batches.lock().unwrap().clone();
    batches[2].sort_unstable();
    assert_eq!(batches, [vec![13], vec![13], vec![1, 2]]);
}

#[test]
fn group_is_batched_again_once_its_lock_is_free() {
    let blocked = Arc::new(AtomicUsize::new(1));
    let left = Arc::clone(&blocked);
    let (coalescer, _, has_started, release) = make(LIMITS, move |inputs| {
        if left.load(Ordering::SeqCst) > 0 {
            return Err((Failed::Blocked, Effect::NotApplied));
        }
        double(inputs)
    });
    assert_eq!(submit(&coalescer, 13), Err(Failed::Blocked));
    blocked.store(0, Ordering::SeqCst);
    assert_eq!(submit(&coalescer, 13), Ok(26));
    thread::scope(|scope| {
        let coalescer = &coalescer;
        scope.spawn(move || submit(coalescer, 0).unwrap());
        has_started.recv().unwrap();
        let caller = scope.spawn(move || submit(coalescer, 13));
        wait_until("one waits", || coalescer.waiting() == 1);
        release.send(()).unwrap();
        assert_eq!(caller.join().unwrap(), Ok(26));
    });
}

#[test]
fn batch_in_which_all_are_blocked_is_not_run_one_by_one_to_its_end() {
    let (results, batches) = run_queued(&[1, 2, 3, 4, 5], block(&[1, 2, 3, 4, 5]));
    assert_eq!(results, vec![Err(Failed::Blocked); 5]);
    assert_eq!(
        batches,
        [vec![1, 2, 3, 4, 5], vec![1], vec![2], vec![3, 4, 5]]
    );
}

#[test]
fn two_blocked_inputs_fail_alone_and_isolate_no_other_group() {
    let (results, batches) = run_queued(&[13, 14, 3, 4], block(&[13, 14]));
    let blocked = || Err(Failed::Blocked);
    assert_eq!(results, [blocked(), blocked(), Ok(6), Ok(8)]);
    assert_eq!(
        batches,
        [vec![13, 14, 3, 4], vec![13], vec![14], vec![3, 4]]
    );
}

#[test]
fn stalled_leader_delays_no_other_run_and_may_return_later() {
    let limits = BatchLimits {
        stall_timeout: Duration::from_millis(20),
        ..LIMITS
    };
    let (coalescer, _, has_started, release) = make(limits, double);
    thread::scope(|scope| {
        // Moved here, so that a failed assertion drops it, which ends the held runs.
        let release = release;
        let coalescer = &coalescer;
        let stalled = scope.spawn(move || submit(coalescer, 0));
        has_started.recv().unwrap();
        let start = Instant::now();
        assert_eq!(submit(coalescer, 4), Ok(8));
        // The stall timeout a hundred times over.
        assert!(start.elapsed() < Duration::from_secs(2));
        release.send(()).unwrap();
        assert_eq!(stalled.join().unwrap(), Ok(0));
        assert_eq!(submit(coalescer, 5), Ok(10));
    });
}

#[test]
fn with_two_runs_allowed_the_second_caller_runs_at_once_and_the_third_waits() {
    let limits = BatchLimits {
        max_in_flight: 2,
        stall_timeout: Duration::from_secs(60),
        ..LIMITS
    };
    let (coalescer, _, has_started, release) = make(limits, double);
    thread::scope(|scope| {
        // Moved here, so that a failed assertion drops it, which ends the held runs.
        let release = release;
        let coalescer = &coalescer;
        scope.spawn(move || submit(coalescer, 0));
        has_started.recv().unwrap();
        assert_eq!(submit(coalescer, 1), Ok(2));
        scope.spawn(move || submit(coalescer, 0));
        has_started.recv().unwrap();
        let third = scope.spawn(|| submit(coalescer, 3));
        wait_until("the third waits", || coalescer.waiting() == 1);
        release.send(()).unwrap();
        assert_eq!(third.join().unwrap(), Ok(6));
        release.send(()).unwrap();
    });
}

#[test]
fn second_run_waits_for_min_batch_inputs() {
    let limits = BatchLimits {
        max_in_flight: 2,
        min_batch: 3,
        ..LIMITS
    };
    let (coalescer, batches, has_started, release) = make(limits, double);
    thread::scope(|scope| {
        let release = release;
        let coalescer = &coalescer;
        scope.spawn(move || submit(coalescer, 0));
        has_started.recv().unwrap();
        let few = [1, 2].map(|number| scope.spawn(move || submit(coalescer, number)));
        wait_until("two wait", || coalescer.waiting() == 2);
        assert_eq!(submit(coalescer, 3), Ok(6));
        for (caller, output) in few.into_iter().zip([2, 4]) {
            assert_eq!(caller.join().unwrap(), Ok(output));
        }
        assert_eq!(batches.lock().unwrap()[0].len(), 3);
        // When a run ends, fewer inputs suffice for the next.
        let last = scope.spawn(move || submit(coalescer, 4));
        wait_until("one waits", || coalescer.waiting() == 1);
        release.send(()).unwrap();
        assert_eq!(last.join().unwrap(), Ok(8));
    });
}

#[test]
fn caller_whose_deadline_passes_leaves_the_queue() {
    let (coalescer, _, has_started, release) = make(LIMITS, double);
    thread::scope(|scope| {
        let release = release;
        let coalescer = &coalescer;
        scope.spawn(move || submit(coalescer, 0));
        has_started.recv().unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(coalescer.submit(Number(1), soon), Err(Failed::TimedOut));
        assert!(soon.elapsed() < Duration::from_secs(2));
        assert_eq!(coalescer.waiting(), 0);
        release.send(()).unwrap();
    });
    assert_eq!(submit(&coalescer, 2), Ok(4));
}

#[test]
fn panic_of_a_leader_does_not_block_the_next_run() {
    let (coalescer, _, _, _release) = make(LIMITS, |inputs| {
        if inputs == [Number(1)] {
            std::panic::panic_any("broken")
        }
        double(inputs)
    });
    thread::scope(|scope| {
        let leader = scope.spawn(|| submit(&coalescer, 1));
        assert!(leader.join().is_err());
    });
    assert_eq!(submit(&coalescer, 2), Ok(4));
}
