//! Group reads and writes on their own: order, loss, fairness, failures, hung leaders. No database.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed one is a failed test

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use movies_api::store::batch::{Batch, Failure, Limits, TimedOut};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq)]
enum Failed {
    Late,
    Bad,
    Away,
}

impl From<TimedOut> for Failed {
    fn from(_: TimedOut) -> Failed {
        Failed::Late
    }
}

impl Failure for Failed {
    fn blames_one(&self) -> bool {
        *self == Failed::Bad
    }
}

type Answers = Result<Vec<Result<u64, Failed>>, Failed>;

const LIMITS: Limits = Limits {
    lanes: 1,
    worthwhile: 1,
    size: 8,
    deadline: Duration::from_secs(20),
    patience: Duration::from_secs(10),
};

fn double(keys: &[u64]) -> Answers {
    Ok(keys.iter().map(|key| Ok(key * 2)).collect())
}

fn always<K>(_: &[K], _: &K) -> bool {
    true
}

/// A batch whose first leader is held inside `run` until the sender is used or dropped.
fn hold(
    batch: &Batch<u64, u64, Failed>,
    entered: &Sender<()>,
    release: &Mutex<Receiver<()>>,
) -> Result<u64, Failed> {
    batch.submit(0, always, |keys| {
        _ = entered.send(());
        _ = release.lock().unwrap().recv();
        double(keys)
    })
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
    fn every_caller_gets_the_row_of_its_own_key_and_each_key_runs_once(
        callers in 1_usize..12,
        calls in 1_u64..30,
        size in 1_usize..10,
        lanes in 1_usize..4,
        worthwhile in 1_usize..6,
    ) {
        let batch = Batch::new(Limits {
            size,
            lanes,
            worthwhile,
            ..LIMITS
        });
        let ran = Mutex::new(Vec::new());
        let start = Barrier::new(callers);
        thread::scope(|scope| {
            for caller in 0..callers {
                let (batch, ran, start) = (&batch, &ran, &start);
                scope.spawn(move || {
                    start.wait();
                    for call in 0..calls {
                        let key = u64::try_from(caller).unwrap() * 1000 + call;
                        let row = batch.submit(key, always, |keys: &[u64]| {
                            assert!(keys.len() <= size);
                            ran.lock().unwrap().extend_from_slice(keys);
                            double(keys)
                        });
                        assert_eq!(row, Ok(key * 2));
                    }
                });
            }
        });
        let mut ran = ran.into_inner().unwrap();
        let total = ran.len();
        ran.sort_unstable();
        ran.dedup();
        prop_assert_eq!(ran.len(), total);
        prop_assert_eq!(total as u64, callers as u64 * calls);
    }
}

#[test]
fn alone_a_caller_is_a_batch_of_one() {
    let batch = Batch::new(LIMITS);
    let row = batch.submit(21, always, |keys| {
        assert_eq!(keys, [21]);
        double(keys)
    });
    assert_eq!(row, Ok(42));
}

/// Queues these keys one after the other behind a held leader, releases it, and gives the batches that ran.
fn run_queued(keys: &[u64], may_join: fn(&[u64], &u64) -> bool) -> Vec<Vec<u64>> {
    let batch = Batch::new(LIMITS);
    let batches = Mutex::new(Vec::new());
    let queued = AtomicUsize::new(0);
    let (entered, has_entered) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    thread::scope(|scope| {
        let (batch, batches, queued, released) = (&batch, &batches, &queued, &released);
        scope.spawn(move || hold(batch, &entered, released).unwrap());
        has_entered.recv().unwrap();
        for (place, key) in keys.iter().enumerate() {
            scope.spawn(move || {
                // Each waits for those before it to be queued, so that the order is the test's.
                wait_until("queueing", || {
                    queued.load(Ordering::SeqCst) == place && batch.waiting() == place
                });
                queued.fetch_add(1, Ordering::SeqCst);
                let row = batch.submit(*key, may_join, |keys| {
                    batches.lock().unwrap().push(keys.to_vec());
                    double(keys)
                });
                assert_eq!(row, Ok(key * 2));
            });
        }
        wait_until("queueing all", || batch.waiting() == keys.len());
        release.send(()).unwrap();
    });
    batches.into_inner().unwrap()
}

#[test]
fn what_queues_behind_a_running_batch_runs_together_in_order_of_arrival() {
    let keys: Vec<u64> = (1..=12).collect();
    let batches = run_queued(&keys, always);
    assert_eq!(batches, [(1..=8).collect::<Vec<u64>>(), (9..=12).collect()]);
}

#[test]
fn a_key_that_may_not_join_waits_for_the_next_batch() {
    let batches = run_queued(&[7, 8, 7, 9], |taken, next| !taken.contains(next));
    assert_eq!(batches, [vec![7, 8, 9], vec![7]]);
}

#[test]
fn one_bad_key_never_fails_its_neighbours() {
    let batch = Batch::new(LIMITS);
    let (entered, has_entered) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    thread::scope(|scope| {
        let (batch, released) = (&batch, &released);
        scope.spawn(move || hold(batch, &entered, released).unwrap());
        has_entered.recv().unwrap();
        let callers: Vec<_> = [1, 13, 3]
            .into_iter()
            .map(|key| {
                let refuse = |keys: &[u64]| {
                    if keys.contains(&13) {
                        Err(Failed::Bad)
                    } else {
                        double(keys)
                    }
                };
                (key, scope.spawn(move || batch.submit(key, always, refuse)))
            })
            .collect();
        wait_until("queueing", || batch.waiting() == 3);
        release.send(()).unwrap();
        for (key, caller) in callers {
            let expected = if key == 13 {
                Err(Failed::Bad)
            } else {
                Ok(key * 2)
            };
            assert_eq!(caller.join().unwrap(), expected);
        }
    });
}

#[test]
fn a_failure_that_is_nobody_s_fault_is_told_to_all_without_another_try() {
    let batch = Batch::new(LIMITS);
    let runs = AtomicUsize::new(0);
    let (entered, has_entered) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    thread::scope(|scope| {
        let (batch, runs, released) = (&batch, &runs, &released);
        scope.spawn(move || hold(batch, &entered, released).unwrap());
        has_entered.recv().unwrap();
        let fail = |_: &[u64]| {
            runs.fetch_add(1, Ordering::SeqCst);
            Err(Failed::Away)
        };
        let callers: Vec<_> = (0..5)
            .map(|key| scope.spawn(move || batch.submit(key, always, fail)))
            .collect();
        wait_until("queueing", || batch.waiting() == 5);
        release.send(()).unwrap();
        for caller in callers {
            assert_eq!(caller.join().unwrap(), Err(Failed::Away));
        }
    });
    assert_eq!(runs.into_inner(), 1);
}

#[test]
fn a_leader_that_hangs_is_passed_by_and_harms_nobody_when_it_returns() {
    let batch = Batch::new(Limits {
        patience: Duration::from_millis(20),
        ..LIMITS
    });
    let (entered, has_entered) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    thread::scope(|scope| {
        let (batch, released) = (&batch, &released);
        let hung = scope.spawn(move || hold(batch, &entered, released));
        has_entered.recv().unwrap();
        assert_eq!(batch.submit(4, always, double), Ok(8));
        release.send(()).unwrap();
        assert_eq!(hung.join().unwrap(), Ok(0));
        assert_eq!(batch.submit(5, always, double), Ok(10));
    });
}

#[test]
fn with_two_lanes_one_caller_is_not_held_up_by_another_and_a_third_is() {
    let batch = Batch::new(Limits {
        lanes: 2,
        deadline: Duration::from_secs(5),
        patience: Duration::from_secs(60),
        ..LIMITS
    });
    let (entered, has_entered) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    thread::scope(|scope| {
        // Dropped at a failure, so that those who are held go home.
        let release = release;
        let (batch, released) = (&batch, &released);
        let also_entered = entered.clone();
        scope.spawn(move || hold(batch, &entered, released));
        has_entered.recv().unwrap();
        assert_eq!(batch.submit(1, always, double), Ok(2));
        scope.spawn(move || hold(batch, &also_entered, released));
        has_entered.recv().unwrap();
        let third = scope.spawn(|| batch.submit(3, always, double));
        wait_until("the third waits", || batch.waiting() == 1);
        release.send(()).unwrap();
        assert_eq!(third.join().unwrap(), Ok(6));
        release.send(()).unwrap();
    });
}

#[test]
fn callers_who_are_too_few_for_a_second_lane_wait_for_one_more() {
    let batch = Batch::new(Limits {
        lanes: 2,
        worthwhile: 3,
        ..LIMITS
    });
    let (entered, has_entered) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    let sizes = Mutex::new(Vec::new());
    let count = |keys: &[u64]| {
        sizes.lock().unwrap().push(keys.len());
        double(keys)
    };
    thread::scope(|scope| {
        let release = release;
        let (batch, released) = (&batch, &released);
        scope.spawn(move || hold(batch, &entered, released));
        has_entered.recv().unwrap();
        let few = [1, 2].map(|key| scope.spawn(move || batch.submit(key, always, count)));
        wait_until("two wait", || batch.waiting() == 2);
        assert_eq!(batch.submit(3, always, count), Ok(6));
        for (caller, row) in few.into_iter().zip([2, 4]) {
            assert_eq!(caller.join().unwrap(), Ok(row));
        }
        assert_eq!(*sizes.lock().unwrap(), [3]);
        // As few behind a batch that ends are led all the same.
        let last = scope.spawn(move || batch.submit(4, always, count));
        wait_until("one waits", || batch.waiting() == 1);
        release.send(()).unwrap();
        assert_eq!(last.join().unwrap(), Ok(8));
    });
}

#[test]
fn a_caller_whose_deadline_runs_out_leaves_the_queue() {
    let batch = Batch::new(Limits {
        deadline: Duration::from_millis(20),
        ..LIMITS
    });
    let (entered, has_entered) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    thread::scope(|scope| {
        let (batch, released) = (&batch, &released);
        scope.spawn(move || hold(batch, &entered, released));
        has_entered.recv().unwrap();
        assert_eq!(batch.submit(1, always, double), Err(Failed::Late));
        assert_eq!(batch.waiting(), 0);
        release.send(()).unwrap();
    });
    assert_eq!(batch.submit(2, always, double), Ok(4));
}

#[test]
fn a_leader_that_panics_passes_the_lead_on() {
    let batch: Batch<u64, u64, Failed> = Batch::new(LIMITS);
    thread::scope(|scope| {
        let leader = scope.spawn(|| {
            batch.submit(1, always, |_| -> Answers {
                std::panic::panic_any("broken")
            })
        });
        assert!(leader.join().is_err());
    });
    assert_eq!(batch.submit(2, always, double), Ok(4));
}
