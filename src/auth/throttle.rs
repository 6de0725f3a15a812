//! Limits on the rate of events by key, such as failed sign-ins by client address.
//!
//! Each key has a leaky bucket: `limit` events may occur at once, and one more each `interval` (the generic cell rate
//! algorithm of ITU-T I.371). Keys are kept in a set-associative table of fixed size, so memory and the time of a call have a
//! limit; a key takes 24 bytes. Does not depend on what is counted.
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The number of sets. The hash of a key selects its set. All sets together hold 65,536 keys in 1.5 MiB.
const SETS: usize = 8192;
const ENTRIES_PER_SET: usize = 8;

const HOUR: Duration = Duration::from_secs(3600);

/// The limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("throttled for {wait:?}")]
pub struct Throttled {
    /// The time until one more event is allowed; never zero.
    pub wait: Duration,
}

/// A rate limit that applies to each key separately. Workers share it.
pub struct Throttle {
    interval: Duration,
    /// The largest debt at which an event is still allowed: `limit - 1` intervals.
    max_debt: Duration,
    /// Has a random key, so that clients cannot choose keys of one set.
    hasher: RandomState,
    /// Empty if there is no limit. Each call locks it once.
    sets: Mutex<Box<[Set]>>,
}

type Set = [Entry; ENTRIES_PER_SET];

#[derive(Clone, Copy, Default)]
struct Entry {
    /// The key's hash. Collisions of 64 bits are too rare to matter.
    key: u64,
    /// When the key has no debt any more. The debt is the time until then.
    clear_at: Option<Instant>,
}

impl Throttle {
    /// Allows `limit` events at once, and one more each `interval`. A limit of 0 allows all.
    pub fn new(limit: u32, interval: Duration) -> Throttle {
        let sets = if limit == 0 { 0 } else { SETS };
        Throttle {
            interval,
            max_debt: interval * limit.saturating_sub(1),
            hasher: RandomState::new(),
            sets: Mutex::new(vec![Set::default(); sets].into_boxed_slice()),
        }
    }

    /// Allows `limit` events at once, and `limit` per hour afterwards. A limit of 0 allows all.
    pub fn per_hour(limit: u32) -> Throttle {
        Throttle::new(limit, HOUR / limit.max(1))
    }

    /// Checks whether an event of the key is allowed, without recording one.
    ///
    /// # Errors
    /// If the limit is reached.
    pub fn check(&self, key: impl Hash, now: Instant) -> Result<(), Throttled> {
        self.change(key, now, |debt| debt)
    }

    /// Records an event of the key.
    ///
    /// # Errors
    /// If the limit is reached. Then the event is not recorded, so retries do not make the wait longer.
    pub fn record(&self, key: impl Hash, now: Instant) -> Result<(), Throttled> {
        self.change(key, now, |debt| debt + self.interval)
    }

    /// Forgets the events of the key.
    ///
    /// # Errors
    /// If the limit is reached. Then no event is forgotten.
    pub fn reset(&self, key: impl Hash, now: Instant) -> Result<(), Throttled> {
        self.change(key, now, |_| Duration::ZERO)
    }

    fn change(
        &self,
        key: impl Hash,
        now: Instant,
        change: impl FnOnce(Duration) -> Duration,
    ) -> Result<(), Throttled> {
        let key = self.hasher.hash_one(key);
        let mut sets = self.sets.lock();
        let Some(entry) = find_entry(&mut sets, key) else {
            return Ok(());
        };
        let clear_at = entry.clear_at.filter(|_| entry.key == key);
        let debt = clear_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        if debt > self.max_debt {
            let wait = debt - self.max_debt;
            return Err(Throttled { wait });
        }
        let changed = change(debt);
        if changed != debt {
            let clear_at = now.checked_add(changed);
            *entry = Entry { key, clear_at };
        }
        Ok(())
    }
}

/// The key's entry, or the entry to replace with it: the one in its set with the least debt, so that many keys with one event
/// each do not evict a key with many.
fn find_entry(sets: &mut [Set], key: u64) -> Option<&mut Entry> {
    let set = key.checked_rem(u64::try_from(sets.len()).ok()?)?;
    let set = sets.get_mut(usize::try_from(set).ok()?)?;
    set.iter_mut()
        .min_by_key(|entry| (entry.key != key, entry.clear_at))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn limit_events_are_allowed_at_once_and_one_more_each_interval() {
        let (throttle, start) = (Throttle::new(10, MINUTE), Instant::now());
        for _ in 0..10 {
            assert_eq!(throttle.check("ann", start), Ok(()));
            assert_eq!(throttle.record("ann", start), Ok(()));
        }
        let throttled = |wait| Err(Throttled { wait });
        assert_eq!(throttle.check("ann", start), throttled(MINUTE));
        assert_eq!(
            throttle.record("ann", start + seconds(3)),
            throttled(seconds(57))
        );
        let later = start + MINUTE;
        assert_eq!(throttle.record("ann", later), Ok(()));
        assert_eq!(throttle.check("ann", later), throttled(MINUTE));
        assert_eq!(throttle.check("bob", later), Ok(()));
    }

    #[test]
    fn throttled_calls_neither_extend_the_wait_nor_reset_it() {
        let (throttle, start) = (Throttle::new(1, MINUTE), Instant::now());
        throttle.record("ann", start).unwrap();
        for _ in 0..100 {
            assert!(throttle.record("ann", start).is_err());
            assert!(throttle.reset("ann", start).is_err());
        }
        assert!(throttle.check("ann", start + seconds(59)).is_err());
        assert_eq!(throttle.check("ann", start + MINUTE), Ok(()));
    }

    #[test]
    fn reset_forgets_earlier_events() {
        let (throttle, start) = (Throttle::new(3, MINUTE), Instant::now());
        for _ in 0..5 {
            throttle.record("ann", start).unwrap();
            throttle.record("ann", start).unwrap();
            throttle.reset("ann", start).unwrap();
        }
    }

    #[test]
    fn limit_of_zero_allows_all() {
        let (throttle, now) = (Throttle::new(0, MINUTE), Instant::now());
        assert!((0..1000).all(|_| throttle.record("ann", now).is_ok()));
        assert!(throttle.sets.lock().is_empty());
    }

    #[test]
    fn concurrent_events_do_not_exceed_the_limit() {
        let (throttle, now) = (Throttle::new(10, MINUTE), Instant::now());
        let counted = thread::scope(|scope| {
            let count = || {
                (0..20)
                    .filter(|_| throttle.record("ann", now).is_ok())
                    .count()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(count)).collect();
            threads
                .into_iter()
                .map(|one| one.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!(counted, 10);
    }

    #[test]
    fn flood_of_keys_neither_throttles_new_keys_nor_evicts_throttled_ones() {
        let (throttle, now) = (Throttle::new(2, MINUTE), Instant::now());
        throttle.record("guessed", now).unwrap();
        throttle.record("guessed", now).unwrap();
        for key in 0..3 * SETS * ENTRIES_PER_SET {
            throttle.record(key, now).unwrap();
        }
        assert!(throttle.check("guessed", now).is_err());
        assert!((0..1000).all(|key| throttle.check(("another", key), now).is_ok()));
    }

    #[test]
    fn full_set_evicts_the_entry_with_the_least_debt() {
        let (start, mut sets) = (Instant::now(), [Set::default()]);
        for (key, clear_in) in (1..=8).zip([5, 9, 2, 7, 9, 9, 9, 9]) {
            let entry = find_entry(&mut sets, key).unwrap();
            let clear_at = Some(start + seconds(clear_in));
            *entry = Entry { key, clear_at };
        }
        assert_eq!(find_entry(&mut sets, 2).unwrap().key, 2);
        assert_eq!(find_entry(&mut sets, 100).unwrap().key, 3);
    }

    proptest! {
        /// Compares with a model of one bucket per key.
        #[test]
        fn throttle_behaves_as_a_leaky_bucket_per_key(
            limit in 1..5u32,
            steps in prop::collection::vec((0..3u8, 0..4u8, 0..90u64), 1..80),
        ) {
            let (throttle, start) = (Throttle::new(limit, MINUTE), Instant::now());
            let mut now = 0;
            let mut clear_at: HashMap<u8, u64> = HashMap::new();
            for (key, action, pause) in steps {
                now += pause;
                let clear = clear_at.entry(key).or_insert(now);
                *clear = (*clear).max(now);
                let is_allowed = *clear - now <= 60 * u64::from(limit - 1);
                let instant = start + seconds(now);
                let result = match action {
                    0 => throttle.check(key, instant),
                    1 => throttle.reset(key, instant),
                    _ => throttle.record(key, instant),
                };
                prop_assert_eq!(result.is_ok(), is_allowed);
                match result {
                    Err(Throttled { wait }) => {
                        prop_assert!(wait > Duration::ZERO && wait <= MINUTE);
                        prop_assert!(throttle.check(key, instant + wait).is_ok());
                    }
                    Ok(()) if action == 1 => *clear = now,
                    Ok(()) if action > 1 => *clear += 60,
                    Ok(()) => {}
                }
            }
        }
    }
}
