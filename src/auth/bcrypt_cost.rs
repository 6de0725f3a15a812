//! Checks at start that this machine is fast enough for the configured bcrypt cost: if a hash takes longer than a request may,
//! every sign-in fails.
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The longest allowed duration of one hash. A request has 9 s in all, and concurrent sign-ins share the cores.
pub const MAX_HASH_DURATION: Duration = Duration::from_secs(2);

/// The cost that is measured, which takes 1 to 10 ms. Each further step takes twice as long.
const MEASURED_COST: u32 = 6;

/// The number of measurements. The shortest counts, since others may have been disturbed.
const MEASUREMENTS: usize = 3;

const MAX_COST: u32 = 31;

/// The configured cost is too high for this machine.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "BCRYPT_COST={cost} is not allowed: one hash would take about {:.1} s on this machine, longer than {} s; \
     the largest cost that fits is {largest}",
    estimate.as_secs_f64(), MAX_HASH_DURATION.as_secs()
)]
pub struct CostTooHigh {
    cost: u32,
    estimate: Duration,
    largest: u32,
}

/// Estimates the duration of a hash of `cost` from hashes of a low cost. Takes up to 30 ms.
///
/// # Errors
/// If a hash of this cost would take longer than [`MAX_HASH_DURATION`].
pub fn check_cost(cost: u32) -> Result<(), CostTooHigh> {
    if cost <= MEASURED_COST {
        return Ok(());
    }
    let measured = (0..MEASUREMENTS).map(|_| measure_hash()).min();
    compare_cost(cost, measured.unwrap_or_default())
}

/// Measures CPU time, which other processes on the machine do not extend.
fn measure_hash() -> Duration {
    let started = read_cpu_time();
    // If bcrypt fails, the duration is about zero and any cost is accepted.
    _ = std::hint::black_box(bcrypt::hash_with_salt("password", MEASURED_COST, [0; 16]));
    read_cpu_time().saturating_sub(started)
}

fn read_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// `measured` is the duration of a hash of [`MEASURED_COST`].
fn compare_cost(cost: u32, measured: Duration) -> Result<(), CostTooHigh> {
    let estimate =
        |cost: u32| measured.saturating_mul(1 << cost.saturating_sub(MEASURED_COST).min(MAX_COST));
    if estimate(cost) <= MAX_HASH_DURATION {
        return Ok(());
    }
    let largest = (MEASURED_COST..=MAX_COST)
        .rev()
        .find(|cost| estimate(*cost) <= MAX_HASH_DURATION);
    Err(CostTooHigh {
        cost,
        estimate: estimate(cost),
        largest: largest.unwrap_or(MEASURED_COST),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_rejected_if_a_hash_would_exceed_the_limit() {
        // 15 ms times 2^7 is 1.92 s.
        let measured = Duration::from_millis(15);
        assert_eq!(compare_cost(4, measured), Ok(()));
        assert_eq!(compare_cost(13, measured), Ok(()));
        let error = compare_cost(14, measured).unwrap_err();
        assert_eq!(
            error.to_string(),
            "BCRYPT_COST=14 is not allowed: one hash would take about 3.8 s on this machine, longer than 2 s; the largest \
             cost that fits is 13"
        );
        assert!(compare_cost(31, measured).is_err());
        let slow = compare_cost(10, Duration::from_secs(3)).unwrap_err();
        assert_eq!(slow.largest, MEASURED_COST);
    }

    #[test]
    fn lowest_costs_are_always_accepted_and_the_highest_never() {
        assert_eq!(check_cost(4), Ok(()));
        assert_eq!(check_cost(31).map_err(|error| error.cost), Err(31));
    }
}
