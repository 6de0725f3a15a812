//! The coalescer alone: order, loss, fairness, failures, blocked groups, stalled leaders. No database.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed one is a failed test

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use movies_api::db::coalescer::{Coalescer, Failure, Input, Limits, RunError, TimedOut};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq)]
enum Failed {
    Late,
    Bad,
    Blocked,
    Away,
}

impl From<TimedOut> for Failed {
    fn from(_: TimedOut) -> Failed {
        Failed::Late
    }
}

impl Failure for Failed {
    fn may_concern_one_input(&self) -> bool {
        matches!(self, Failed::Bad | Failed::Blocked)
    }

    fn is_blocked(&self) -> bool {
        *self == Failed::Blocked
    }
}

/// An input whose group is the number itself; two equal ones do not join.
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

type Outputs = Result<Vec<u64>, RunError<Failed>>;
type Doubler = Coalescer<Number, u64, Failed>;
/// The batches that ran.
type Batches = Arc<Mutex<Vec<Vec<u64>>>>;

const LIMITS: Limits = Limits {
    max_batch: 8,
    min_batch: 1,
    max_in_flight: 1,
    stall_timeout: Duration::from_secs(10),
};

/// Submits run until then at most, and no test waits so long.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn double(inputs: &[Number]) -> Outputs {
    Ok(inputs.iter().map(|Number(number)| number * 2).collect())
}

fn submit(coalescer: &Doubler, number: u64) -> Result<u64, Failed> {
    coalescer.submit(Number(number), later())
}

/// What a run of the input 0 does: it says that it runs, and goes on once it is told to.
struct Hold {
    entered: Sender<()>,
    released: Mutex<Receiver<()>>,
}

/// A coalescer in front of `run`, which holds a run of the input 0 alone until it is released; the batches that ran
/// beside those; what a held run says; and what releases one.
fn make(
    limits: Limits,
    run: impl Fn(&[Number]) -> Outputs + Send + Sync + 'static,
) -> (Doubler, Batches, Receiver<()>, Sender<()>) {
    let (entered, has_entered) = channel();
    let (release, released) = channel();
    let hold = Hold {
        entered,
        released: Mutex::new(released),
    };
    let batches = Arc::new(Mutex::new(Vec::new()));
    let ran = Arc::clone(&batches);
    let coalescer = Coalescer::new(limits, move |inputs: &[Number], _| {
        if inputs == [Number(0)] {
            _ = hold.entered.send(());
            _ = hold.released.lock().unwrap().recv();
            return double(inputs);
        }
        let batch = inputs.iter().map(|Number(number)| *number).collect();
        ran.lock().unwrap().push(batch);
        run(inputs)
    });
    (coalescer, batches, has_entered, release)
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
    fn every_caller_gets_its_own_output_and_each_input_runs_once(
        callers in 1_usize..12,
        calls in 1_u64..30,
        max_batch in 1_usize..10,
        max_in_flight in 1_usize..4,
        min_batch in 1_usize..6,
    ) {
        let limits = Limits {
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
fn a_caller_that_is_alone_runs_a_batch_of_one() {
    let (coalescer, batches, _, _release) = make(LIMITS, double);
    assert_eq!(submit(&coalescer, 21), Ok(42));
    assert_eq!(*batches.lock().unwrap(), [[21]]);
}

/// Queues these inputs one after the other behind a held leader, releases it, and returns the results and the batches
/// that ran.
fn run_queued(
    numbers: &[u64],
    run: impl Fn(&[Number]) -> Outputs + Send + Sync + 'static,
) -> (Vec<Result<u64, Failed>>, Vec<Vec<u64>>) {
    let (coalescer, batches, has_entered, release) = make(LIMITS, run);
    let queued = AtomicUsize::new(0);
    let results = thread::scope(|scope| {
        let (coalescer, queued) = (&coalescer, &queued);
        scope.spawn(move || submit(coalescer, 0).unwrap());
        has_entered.recv().unwrap();
        let callers: Vec<_> = numbers
            .iter()
            .enumerate()
            .map(|(position, number)| {
                scope.spawn(move || {
                    // Each waits for those before it to be queued, so that the order is the test's.
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
fn what_queues_behind_a_run_runs_together_in_order_of_arrival() {
    let numbers: Vec<u64> = (1..=12).collect();
    let (results, batches) = run_queued(&numbers, double);
    assert_eq!(batches, [(1..=8).collect::<Vec<u64>>(), (9..=12).collect()]);
    assert_eq!(
        results,
        (1..=12).map(|number| Ok(number * 2)).collect::<Vec<_>>()
    );
}

#[test]
fn an_input_that_may_not_join_waits_for_the_next_batch() {
    let (_, batches) = run_queued(&[7, 8, 7, 9], double);
    assert_eq!(batches, [vec![7, 8, 9], vec![7]]);
}

#[test]
fn one_bad_input_does_not_fail_its_neighbours() {
    let (results, batches) = run_queued(&[1, 13, 3], |inputs| {
        if inputs.contains(&Number(13)) {
            return Err(RunError::NotApplied(Failed::Bad));
        }
        double(inputs)
    });
    assert_eq!(results, [Ok(2), Err(Failed::Bad), Ok(6)]);
    assert_eq!(batches, [vec![1, 13, 3], vec![1], vec![13], vec![3]]);
}

#[test]
fn a_batch_that_may_have_been_applied_is_not_run_again() {
    let (results, batches) = run_queued(&[1, 13, 3], |inputs| {
        if inputs.contains(&Number(13)) {
            return Err(RunError::MaybeApplied(Failed::Bad));
        }
        double(inputs)
    });
    assert_eq!(
        results,
        [Err(Failed::Bad), Err(Failed::Bad), Err(Failed::Bad)]
    );
    assert_eq!(batches, [[1, 13, 3]]);
}

#[test]
fn a_failure_that_concerns_all_is_given_to_all_without_another_try() {
    let fail = |_: &[Number]| Err(RunError::NotApplied(Failed::Away));
    let (results, batches) = run_queued(&[1, 2, 3, 4, 5], fail);
    assert_eq!(results, vec![Err(Failed::Away); 5]);
    assert_eq!(batches.len(), 1);
}

/// Runs what holds none of these numbers, which wait for a lock that they do not get.
fn block(blocked: &'static [u64]) -> impl Fn(&[Number]) -> Outputs + Send + Sync {
    move |inputs| {
        if inputs.iter().any(|Number(number)| blocked.contains(number)) {
            return Err(RunError::NotApplied(Failed::Blocked));
        }
        double(inputs)
    }
}

#[test]
fn a_blocked_input_fails_alone_and_then_runs_apart_from_the_others() {
    let (coalescer, batches, has_entered, release) = make(LIMITS, block(&[13]));
    assert_eq!(submit(&coalescer, 13), Err(Failed::Blocked));
    thread::scope(|scope| {
        let coalescer = &coalescer;
        scope.spawn(move || submit(coalescer, 0).unwrap());
        has_entered.recv().unwrap();
        let others = [1, 2].map(|number| scope.spawn(move || submit(coalescer, number)));
        wait_until("two wait", || coalescer.waiting() == 2);
        // Not queued behind the held run, and in no batch.
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
fn a_group_whose_lock_is_free_again_is_batched_again() {
    let blocked = Arc::new(AtomicUsize::new(1));
    let left = Arc::clone(&blocked);
    let (coalescer, _, has_entered, release) = make(LIMITS, move |inputs| {
        if left.load(Ordering::SeqCst) > 0 {
            return Err(RunError::NotApplied(Failed::Blocked));
        }
        double(inputs)
    });
    assert_eq!(submit(&coalescer, 13), Err(Failed::Blocked));
    blocked.store(0, Ordering::SeqCst);
    assert_eq!(submit(&coalescer, 13), Ok(26));
    thread::scope(|scope| {
        let coalescer = &coalescer;
        scope.spawn(move || submit(coalescer, 0).unwrap());
        has_entered.recv().unwrap();
        let caller = scope.spawn(move || submit(coalescer, 13));
        wait_until("it waits with the others", || coalescer.waiting() == 1);
        release.send(()).unwrap();
        assert_eq!(caller.join().unwrap(), Ok(26));
    });
}

#[test]
fn where_all_are_blocked_few_are_tried_one_by_one() {
    let (results, batches) = run_queued(&[1, 2, 3, 4, 5], block(&[1, 2, 3, 4, 5]));
    assert_eq!(results, vec![Err(Failed::Blocked); 5]);
    assert_eq!(
        batches,
        [vec![1, 2, 3, 4, 5], vec![1], vec![2], vec![3, 4, 5]]
    );
}

#[test]
fn two_blocked_inputs_fail_alone_and_isolate_nobody_else() {
    let (results, batches) = run_queued(&[13, 14, 3, 4], block(&[13, 14]));
    let blocked = || Err(Failed::Blocked);
    assert_eq!(results, [blocked(), blocked(), Ok(6), Ok(8)]);
    assert_eq!(
        batches,
        [vec![13, 14, 3, 4], vec![13], vec![14], vec![3, 4]]
    );
}

#[test]
fn a_leader_that_stalls_is_passed_by_and_harms_nobody_when_it_returns() {
    let limits = Limits {
        stall_timeout: Duration::from_millis(20),
        ..LIMITS
    };
    let (coalescer, _, has_entered, release) = make(limits, double);
    thread::scope(|scope| {
        // Dropped at a failure, so that held runs end.
        let release = release;
        let coalescer = &coalescer;
        let stalled = scope.spawn(move || submit(coalescer, 0));
        has_entered.recv().unwrap();
        let start = Instant::now();
        assert_eq!(submit(coalescer, 4), Ok(8));
        // A hundred times the stall timeout.
        assert!(start.elapsed() < Duration::from_secs(2));
        release.send(()).unwrap();
        assert_eq!(stalled.join().unwrap(), Ok(0));
        assert_eq!(submit(coalescer, 5), Ok(10));
    });
}

#[test]
fn with_two_runs_in_flight_one_caller_does_not_wait_for_another_and_a_third_does() {
    let limits = Limits {
        max_in_flight: 2,
        stall_timeout: Duration::from_secs(60),
        ..LIMITS
    };
    let (coalescer, _, has_entered, release) = make(limits, double);
    thread::scope(|scope| {
        // Dropped at a failure, so that held runs end.
        let release = release;
        let coalescer = &coalescer;
        scope.spawn(move || submit(coalescer, 0));
        has_entered.recv().unwrap();
        assert_eq!(submit(coalescer, 1), Ok(2));
        scope.spawn(move || submit(coalescer, 0));
        has_entered.recv().unwrap();
        let third = scope.spawn(|| submit(coalescer, 3));
        wait_until("the third waits", || coalescer.waiting() == 1);
        release.send(()).unwrap();
        assert_eq!(third.join().unwrap(), Ok(6));
        release.send(()).unwrap();
    });
}

#[test]
fn callers_who_are_too_few_for_a_second_run_wait_for_one_more() {
    let limits = Limits {
        max_in_flight: 2,
        min_batch: 3,
        ..LIMITS
    };
    let (coalescer, batches, has_entered, release) = make(limits, double);
    thread::scope(|scope| {
        let release = release;
        let coalescer = &coalescer;
        scope.spawn(move || submit(coalescer, 0));
        has_entered.recv().unwrap();
        let few = [1, 2].map(|number| scope.spawn(move || submit(coalescer, number)));
        wait_until("two wait", || coalescer.waiting() == 2);
        assert_eq!(submit(coalescer, 3), Ok(6));
        for (caller, output) in few.into_iter().zip([2, 4]) {
            assert_eq!(caller.join().unwrap(), Ok(output));
        }
        assert_eq!(batches.lock().unwrap()[0].len(), 3);
        // As few behind a run that ends are led all the same.
        let last = scope.spawn(move || submit(coalescer, 4));
        wait_until("one waits", || coalescer.waiting() == 1);
        release.send(()).unwrap();
        assert_eq!(last.join().unwrap(), Ok(8));
    });
}

#[test]
fn a_caller_whose_deadline_passes_leaves_the_queue() {
    let (coalescer, _, has_entered, release) = make(LIMITS, double);
    thread::scope(|scope| {
        let release = release;
        let coalescer = &coalescer;
        scope.spawn(move || submit(coalescer, 0));
        has_entered.recv().unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(coalescer.submit(Number(1), soon), Err(Failed::Late));
        assert!(soon.elapsed() < Duration::from_secs(2));
        assert_eq!(coalescer.waiting(), 0);
        release.send(()).unwrap();
    });
    assert_eq!(submit(&coalescer, 2), Ok(4));
}

#[test]
fn a_leader_that_panics_passes_the_lead_on() {
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
