//! How often somebody may fail: a key goes in, a verdict comes out. Uses no other room; anybody may use it.
//!
//! What is counted is forgotten at a steady rate, a leaky bucket: `limit` may come at once, and one more each `interval`
//! (the generic cell rate algorithm of ITU-T I.371, kept for failures rather than for all that is tried). A key costs 24
//! bytes of a table whose size never changes; no verdict takes longer than a look at eight of its places.
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The table's sets; a key belongs to one of them. With eight places each that is 65,536 keys in 1.5 MiB.
const SETS: usize = 8192;
const PLACES: usize = 8;

const HOUR: Duration = Duration::from_secs(3600);

/// The limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("throttled for {wait:?}")]
pub struct Throttled {
    /// How long it takes until one more is allowed; never zero.
    pub wait: Duration,
}

/// One bound, kept for each key apart.
pub struct Throttle {
    interval: Duration,
    /// How much a key may owe and still go on: `limit - 1` intervals.
    most: Duration,
    /// Keyed at random, so that nobody can choose names that share a set.
    hasher: RandomState,
    /// Without sets there is no bound.
    sets: Mutex<Box<[[Place; PLACES]]>>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    /// The key's hash. That two of 64 bits are equal is less likely than that the table is lost in a restart.
    key: u64,
    /// When all that was counted is forgotten.
    clear_at: Option<Instant>,
}

impl Throttle {
    /// A bound of so many at once, and one more each interval. A limit of 0 is no bound.
    pub fn new(limit: u32, interval: Duration) -> Throttle {
        let sets = if limit == 0 { 0 } else { SETS };
        Throttle {
            interval,
            most: interval * limit.saturating_sub(1),
            hasher: RandomState::new(),
            sets: Mutex::new(vec![[Place::default(); PLACES]; sets].into_boxed_slice()),
        }
    }

    /// A bound of so many in an hour: all of them at once, or one now and then.
    pub fn each_hour(limit: u32) -> Throttle {
        Throttle::new(limit, HOUR / limit.max(1))
    }

    /// Whether the key may go on. Changes nothing.
    ///
    /// # Errors
    /// If the limit is reached.
    pub fn check(&self, key: impl Hash, now: Instant) -> Result<(), Throttled> {
        self.change(key, now, |debt| debt)
    }

    /// Counts one more of the key.
    ///
    /// # Errors
    /// If the limit is reached; then nothing is counted, so that trying does not make the wait longer.
    pub fn count(&self, key: impl Hash, now: Instant) -> Result<(), Throttled> {
        self.change(key, now, |debt| debt + self.interval)
    }

    /// Forgets all that was counted of the key.
    ///
    /// # Errors
    /// If the limit is reached; then nothing is forgotten.
    pub fn forget(&self, key: impl Hash, now: Instant) -> Result<(), Throttled> {
        self.change(key, now, |_| Duration::ZERO)
    }

    fn change(
        &self,
        key: impl Hash,
        now: Instant,
        change: impl FnOnce(Duration) -> Duration,
    ) -> Result<(), Throttled> {
        let key = self.hasher.hash_one(key);
        let mut sets = self.lock();
        let Some(place) = find_place(&mut sets, key) else {
            return Ok(());
        };
        let clear_at = place.clear_at.filter(|_| place.key == key);
        let debt = clear_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        if debt > self.most {
            let wait = debt - self.most;
            return Err(Throttled { wait });
        }
        let changed = change(debt);
        if changed != debt {
            let clear_at = now.checked_add(changed);
            *place = Place { key, clear_at };
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Box<[[Place; PLACES]]>> {
        // Each place is written whole, so a lock poisoned elsewhere is still good.
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key's place, or the one in its set that is clear first: who failed least is the first to be forgotten, so that
/// many names with one failure each do not wash out one with many.
fn find_place(sets: &mut [[Place; PLACES]], key: u64) -> Option<&mut Place> {
    let set = key.checked_rem(u64::try_from(sets.len()).ok()?)?;
    let places = sets.get_mut(usize::try_from(set).ok()?)?;
    places
        .iter_mut()
        .min_by_key(|place| (place.key != key, place.clear_at))
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
    fn as_many_as_allowed_may_come_at_once_and_one_more_each_interval() {
        let (throttle, start) = (Throttle::new(10, MINUTE), Instant::now());
        for _ in 0..10 {
            assert_eq!(throttle.check("ann", start), Ok(()));
            assert_eq!(throttle.count("ann", start), Ok(()));
        }
        let told = |wait| Err(Throttled { wait });
        assert_eq!(throttle.check("ann", start), told(MINUTE));
        assert_eq!(throttle.count("ann", start + seconds(3)), told(seconds(57)));
        let later = start + MINUTE;
        assert_eq!(throttle.count("ann", later), Ok(()));
        assert_eq!(throttle.check("ann", later), told(MINUTE));
        assert_eq!(throttle.check("bob", later), Ok(()));
    }

    #[test]
    fn what_is_refused_does_not_make_the_wait_longer_and_frees_nothing() {
        let (throttle, start) = (Throttle::new(1, MINUTE), Instant::now());
        throttle.count("ann", start).unwrap();
        for _ in 0..100 {
            assert!(throttle.count("ann", start).is_err());
            assert!(throttle.forget("ann", start).is_err());
        }
        assert!(throttle.check("ann", start + seconds(59)).is_err());
        assert_eq!(throttle.check("ann", start + MINUTE), Ok(()));
    }

    #[test]
    fn who_succeeds_in_time_begins_anew() {
        let (throttle, start) = (Throttle::new(3, MINUTE), Instant::now());
        for _ in 0..5 {
            throttle.count("ann", start).unwrap();
            throttle.count("ann", start).unwrap();
            throttle.forget("ann", start).unwrap();
        }
    }

    #[test]
    fn a_limit_of_nothing_is_no_bound() {
        let (throttle, now) = (Throttle::new(0, MINUTE), Instant::now());
        assert!((0..1000).all(|_| throttle.count("ann", now).is_ok()));
        assert!(throttle.lock().is_empty());
    }

    #[test]
    fn of_those_that_come_at_once_no_more_are_counted_than_allowed() {
        let (throttle, now) = (Throttle::new(10, MINUTE), Instant::now());
        let counted = thread::scope(|scope| {
            let count = || {
                (0..20)
                    .filter(|_| throttle.count("ann", now).is_ok())
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
    fn a_flood_of_keys_locks_nobody_out_and_hides_nobody() {
        let (throttle, now) = (Throttle::new(2, MINUTE), Instant::now());
        throttle.count("guessed", now).unwrap();
        throttle.count("guessed", now).unwrap();
        for key in 0..3 * SETS * PLACES {
            throttle.count(key, now).unwrap();
        }
        assert!(throttle.check("guessed", now).is_err());
        assert!((0..1000).all(|key| throttle.check(("another", key), now).is_ok()));
    }

    #[test]
    fn of_a_full_set_the_one_that_is_clear_first_gives_way() {
        let (start, mut sets) = (Instant::now(), [[Place::default(); PLACES]]);
        for (key, clear_in) in (1..=8).zip([5, 9, 2, 7, 9, 9, 9, 9]) {
            let place = find_place(&mut sets, key).unwrap();
            let clear_at = Some(start + seconds(clear_in));
            *place = Place { key, clear_at };
        }
        assert_eq!(find_place(&mut sets, 2).unwrap().key, 2);
        assert_eq!(find_place(&mut sets, 100).unwrap().key, 3);
    }

    proptest! {
        /// Against a list of all that was counted, forgotten one by one.
        #[test]
        fn a_key_is_throttled_as_a_bucket_that_leaks(
            limit in 1..5u32,
            steps in prop::collection::vec((0..3u8, 0..4u8, 0..90u64), 1..80),
        ) {
            let (throttle, start) = (Throttle::new(limit, MINUTE), Instant::now());
            let mut now = 0;
            let mut clear_at: HashMap<u8, u64> = HashMap::new();
            for (key, act, pause) in steps {
                now += pause;
                let clear = clear_at.entry(key).or_insert(now);
                *clear = (*clear).max(now);
                let is_allowed = *clear - now <= 60 * u64::from(limit - 1);
                let instant = start + seconds(now);
                let verdict = match act {
                    0 => throttle.check(key, instant),
                    1 => throttle.forget(key, instant),
                    _ => throttle.count(key, instant),
                };
                prop_assert_eq!(verdict.is_ok(), is_allowed);
                match verdict {
                    Err(Throttled { wait }) => {
                        prop_assert!(wait > Duration::ZERO && wait <= MINUTE);
                        prop_assert!(throttle.check(key, instant + wait).is_ok());
                    }
                    Ok(()) if act == 1 => *clear = now,
                    Ok(()) if act > 1 => *clear += 60,
                    Ok(()) => {}
                }
            }
        }
    }
}
