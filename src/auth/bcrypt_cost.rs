//! Whether a bcrypt cost can be met on this machine: a hash that takes longer than a request would make every sign-in fail.
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The longest that one hash may take. A request has 9 s in all, and sign-ins that come together share the cores.
pub const MAX_HASH_DURATION: Duration = Duration::from_secs(2);

/// The cost that is measured: 1 to 10 ms. Each further step takes twice as long.
const MEASURED_COST: u32 = 6;

/// How often it is measured. The shortest counts: others were disturbed.
const MEASUREMENTS: usize = 3;

const MAX_COST: u32 = 31;

/// The cost is too high for this machine.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "BCRYPT_COST={cost} is not allowed: one hash would take about {:.1} s on this machine, longer than {} s; \
     the largest cost that fits is {largest}",
    estimate.as_secs_f64(), MAX_HASH_DURATION.as_secs()
)]
pub struct UnmetCost {
    cost: u32,
    estimate: Duration,
    largest: u32,
}

/// Measures hashes of a low cost, unless this one is as low.
///
/// # Errors
/// If a hash of this cost would take longer than [`MAX_HASH_DURATION`].
pub fn check_cost(cost: u32) -> Result<(), UnmetCost> {
    if cost <= MEASURED_COST {
        return Ok(());
    }
    let measured = (0..MEASUREMENTS).map(|_| measure_hash()).min();
    judge_cost(cost, measured.unwrap_or_default())
}

/// The time that the processor spends on it, which does not grow while other processes have the processor.
fn measure_hash() -> Duration {
    let started = read_cpu_time();
    // A failure takes no time, and then any cost fits.
    _ = std::hint::black_box(bcrypt::hash_with_salt("password", MEASURED_COST, [0; 16]));
    read_cpu_time().saturating_sub(started)
}

fn read_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// `measured` is what a hash of [`MEASURED_COST`] took.
fn judge_cost(cost: u32, measured: Duration) -> Result<(), UnmetCost> {
    let estimate =
        |cost: u32| measured.saturating_mul(1 << cost.saturating_sub(MEASURED_COST).min(MAX_COST));
    if estimate(cost) <= MAX_HASH_DURATION {
        return Ok(());
    }
    let fitting = (MEASURED_COST..=MAX_COST).rev();
    let largest = fitting
        .into_iter()
        .find(|cost| estimate(*cost) <= MAX_HASH_DURATION);
    Err(UnmetCost {
        cost,
        estimate: estimate(cost),
        largest: largest.unwrap_or(MEASURED_COST),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_refused_where_its_hash_would_take_longer_than_the_limit() {
        // 2^7 times 15 ms are 1.92 s.
        let measured = Duration::from_millis(15);
        assert_eq!(judge_cost(4, measured), Ok(()));
        assert_eq!(judge_cost(13, measured), Ok(()));
        let error = judge_cost(14, measured).unwrap_err();
        assert_eq!(
            error.to_string(),
            "BCRYPT_COST=14 is not allowed: one hash would take about 3.8 s on this machine, longer than 2 s; the largest \
             cost that fits is 13"
        );
        assert!(judge_cost(31, measured).is_err());
        let slow = judge_cost(10, Duration::from_secs(3)).unwrap_err();
        assert_eq!(slow.largest, MEASURED_COST);
    }

    #[test]
    fn a_cost_below_the_measured_one_is_not_measured_and_the_highest_fits_nowhere() {
        assert_eq!(check_cost(4), Ok(()));
        assert_eq!(check_cost(31).map_err(|error| error.cost), Err(31));
    }
}
