//! Passwords: bcrypt over SHA-256, the queue in front of it, Django's PBKDF2 and validators. Knows no users and no HTTP.
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::python_text;
use crate::telemetry::metrics;

/// Django's list of common passwords (django/contrib/auth/common-passwords.txt.gz of Django 5.2, BSD-3-Clause,
/// see common_passwords.LICENSE), one a line, in lower case.
static COMMON_PASSWORDS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// The shortest password allowed, in code points.
pub const MINIMUM_LENGTH: usize = 8;

/// What Django's prefix for bcrypt over the hexadecimal SHA-256 of the password looks like. The digest is 64
/// bytes, so bcrypt's limit of 72 cuts nothing.
const PREFIX: &str = "bcrypt_sha256$";

/// Django's prefix for PBKDF2 with HMAC-SHA-256, its default; then follow iterations, salt and key, split by dollars.
const PBKDF2_PREFIX: &str = "pbkdf2_sha256$";

/// PBKDF2 of more iterations is not computed: Django 5.2 has 1,000,000, and a row that somebody tampered with must not
/// hold a core. The import's statement find_unverifiable_passwords knows the same bound.
const MOST_ITERATIONS: u32 = 5_000_000;

/// How long a request may wait for a core and its hash. A request has 9 s in all.
pub const HASH_TIMEOUT: Duration = Duration::from_secs(8);

/// Stored hashes of a higher cost, unless it is the configured one, match nothing: one of cost 31, in a row that somebody
/// tampered with, would hold a core for days. On the machine where it was measured cost 16 takes 7 s.
const MAX_STORED_COST: u32 = 16;

/// Hashing failed or could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too many hashes are waiting; try again shortly.
    #[error("too many passwords wait for their hash")]
    Busy,
    /// bcrypt itself failed.
    #[error("bcrypt: {0}")]
    Bcrypt(#[from] bcrypt::BcryptError),
}

/// How hard hashes are and how many may wait.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// bcrypt's cost, 4 to 31: the hash takes 2^cost rounds.
    pub rounds_log2: u32,
    /// How many requests may wait for a free core before further ones are refused.
    pub waiting_limit: usize,
}

/// Hashes and verifies passwords, at most as many at once as there are cores, so that sign-ins never starve
/// readers.
pub struct Hasher {
    cost: Cost,
    cores: usize,
    queue: Mutex<Queue>,
    freed: Condvar,
    /// What the password of an unknown user is verified against: a well-formed hash that was never computed.
    nobody: String,
}

#[derive(Default)]
struct Queue {
    running: usize,
    waiting: usize,
}

impl Hasher {
    /// A hasher of the given cost.
    pub fn new(cost: Cost) -> Hasher {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        // Salt and key of zeros: verifying against it takes as long as against any other hash of this cost.
        let zeros = ".".repeat(53);
        Hasher {
            cost,
            cores,
            queue: Mutex::default(),
            freed: Condvar::new(),
            nobody: format!("$2b${:02}${zeros}", cost.rounds_log2),
        }
    }

    /// The password's hash in the form that Django stores: `bcrypt_sha256$$2b$10$...`.
    ///
    /// # Errors
    /// [`Error::Busy`] if the queue is full, or no core was free until the deadline.
    pub fn hash(&self, password: &str, deadline: Instant) -> Result<String, Error> {
        self.acquire_core(deadline)?.hash(password)
    }

    /// As [`Core::verify`], on a core of its own.
    ///
    /// # Errors
    /// [`Error::Busy`] if the queue is full, or no core was free until the deadline.
    pub fn verify(
        &self,
        password: &str,
        stored: Option<&str>,
        deadline: Instant,
    ) -> Result<bool, Error> {
        Ok(self.acquire_core(deadline)?.verify(password, stored))
    }

    /// Waits until the deadline for a core to hash on, for a caller that hashes more than once. Counts how that went.
    ///
    /// # Errors
    /// [`Error::Busy`] if the queue is full, or no core was free until the deadline.
    pub fn acquire_core(&self, deadline: Instant) -> Result<Core<'_>, Error> {
        let asked = Instant::now();
        let core = self.wait_for_core(deadline);
        match core {
            Ok(_) => metrics::count_hash_wait(asked.elapsed()),
            Err(_) => metrics::count_hash_refusal(),
        }
        core
    }

    /// How many passwords are hashed now, and how many wait for that.
    pub fn queue_lengths(&self) -> (usize, usize) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        (queue.running, queue.waiting)
    }

    fn wait_for_core(&self, deadline: Instant) -> Result<Core<'_>, Error> {
        // The counters are whole at every step, so a lock poisoned elsewhere is still good.
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if deadline <= Instant::now() {
            return Err(Error::Busy);
        }
        if queue.running >= self.cores {
            if queue.waiting >= self.cost.waiting_limit {
                return Err(Error::Busy);
            }
            queue.waiting += 1;
            while queue.running >= self.cores {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    queue.waiting -= 1;
                    return Err(Error::Busy);
                }
                let woken = self.freed.wait_timeout(queue, left);
                queue = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
            queue.waiting -= 1;
        }
        queue.running += 1;
        Ok(Core(self))
    }
}

/// A core that is reserved for hashing until this is dropped.
pub struct Core<'a>(&'a Hasher);

impl Core<'_> {
    /// As [`Hasher::hash`].
    ///
    /// # Errors
    /// If bcrypt fails, as without randomness.
    pub fn hash(&self, password: &str) -> Result<String, Error> {
        let hash = bcrypt::hash(digest(password), self.0.cost.rounds_log2)?;
        Ok(format!("{PREFIX}{hash}"))
    }

    /// Whether the password has this stored hash. Without one (an unknown user) the answer is no, after as much work as
    /// for a wrong password.
    pub fn verify(&self, password: &str, stored: Option<&str>) -> bool {
        if let Some(foreign) = stored.and_then(|stored| stored.strip_prefix(PBKDF2_PREFIX)) {
            return verify_pbkdf2(password, foreign).unwrap_or(false);
        }
        let known = stored.and_then(|stored| stored.strip_prefix(PREFIX));
        let known = known.filter(|hash| self.is_affordable(hash));
        let matches = bcrypt::verify(digest(password), known.unwrap_or(&self.0.nobody));
        // A stored text that is no hash (Django's "!" for an unusable password) matches nothing.
        matches.unwrap_or(false) && known.is_some()
    }

    /// `hash` is bcrypt's, such as `$2b$10$...`; what is none is left to bcrypt itself.
    fn is_affordable(&self, hash: &str) -> bool {
        let cost = hash.get(4..6).and_then(|cost| cost.parse().ok());
        cost.is_none_or(|cost: u32| cost <= MAX_STORED_COST.max(self.0.cost.rounds_log2))
    }
}

impl Drop for Core<'_> {
    fn drop(&mut self) {
        let queue = self.0.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner).running -= 1;
        self.0.freed.notify_one();
    }
}

/// Whether the hash is of another kind than those that are made here, and should give way to one of these.
pub fn is_foreign(stored: &str) -> bool {
    !stored.starts_with(PREFIX)
}

/// `None` if what was stored is no such hash, or asks for too many iterations.
fn verify_pbkdf2(password: &str, stored: &str) -> Option<bool> {
    let mut parts = stored.split('$');
    let (iterations, salt, key) = (parts.next()?, parts.next()?, parts.next()?);
    let iterations = iterations.parse().ok()?;
    if !(1..=MOST_ITERATIONS).contains(&iterations) {
        return None;
    }
    let mut computed = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(
        password.as_bytes(),
        salt.as_bytes(),
        iterations,
        &mut computed,
    );
    let key = BASE64_STANDARD.decode(key).ok()?;
    Some(computed.ct_eq(&key).into())
}

fn digest(password: &str) -> String {
    Sha256::digest(password.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What Django's validators (length, common, numeric) say against the password, in their order.
pub fn find_weaknesses(password: &str) -> Vec<&'static str> {
    let mut weaknesses = Vec::new();
    if password.chars().count() < MINIMUM_LENGTH {
        weaknesses.push("This password is too short. It must contain at least 8 characters.");
    }
    if COMMON_PASSWORDS.contains(python_text::strip(&password.to_lowercase())) {
        weaknesses.push("This password is too common.");
    }
    if !password.is_empty() && password.chars().all(python_text::is_digit) {
        weaknesses.push("This password is entirely numeric.");
    }
    weaknesses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher(waiting_limit: usize) -> Hasher {
        Hasher::new(Cost {
            rounds_log2: 4,
            waiting_limit,
        })
    }

    fn later() -> Instant {
        Instant::now() + HASH_TIMEOUT
    }

    #[test]
    fn a_hash_verifies_its_own_password_alone() {
        let core = hasher(1);
        let core = core.acquire_core(later()).unwrap();
        let long = "x".repeat(72);
        let stored = core.hash(&format!("{long}a")).unwrap();
        assert!(stored.starts_with("bcrypt_sha256$$2b$04$"));
        assert!(core.verify(&format!("{long}a"), Some(&stored)));
        assert!(!core.verify(&format!("{long}b"), Some(&stored)));
        assert!(!core.verify("x", None));
        assert!(!core.verify("x", Some("!unusable")));
    }

    #[test]
    fn the_hash_of_an_unknown_user_is_one_that_bcrypt_computes() {
        for cost in [4, 5] {
            let hasher = Hasher::new(Cost {
                rounds_log2: cost,
                waiting_limit: 0,
            });
            let parts: bcrypt::HashParts = hasher.nobody.parse().unwrap();
            assert_eq!(parts.get_cost(), cost);
            assert!(!bcrypt::verify(digest("x"), &hasher.nobody).unwrap());
        }
    }

    #[test]
    fn a_stored_hash_of_a_cost_past_the_bound_matches_nothing() {
        let hasher = hasher(0);
        let core = hasher.acquire_core(later()).unwrap();
        let stored = core.hash("x").unwrap();
        assert!(core.is_affordable(stored.strip_prefix(PREFIX).unwrap()));
        // Computing this one would take months.
        assert!(!core.verify("x", Some(&stored.replace("$04$", "$31$"))));
    }

    /// By Django 5.2: `PBKDF2PasswordHasher().encode("naïve password", "saltsalt", 1000)`.
    const DJANGO_S: &str =
        "pbkdf2_sha256$1000$saltsalt$ZbYrW2qEUunsgVZjnP7LeJwU2YmZnoQGdmHoUPQzodM=";

    #[test]
    fn a_hash_by_django_s_pbkdf2_verifies_and_is_to_be_replaced() {
        let hasher = hasher(1);
        let verify = |password, stored: &str| {
            let verified = hasher.verify(password, Some(stored), later());
            verified.unwrap()
        };
        assert!(verify("naïve password", DJANGO_S));
        assert!(!verify("naive password", DJANGO_S));
        assert!(is_foreign(DJANGO_S));
        assert!(!is_foreign(
            &hasher.hash("naïve password", later()).unwrap()
        ));
    }

    #[test]
    fn a_broken_or_too_costly_hash_matches_nothing_at_once() {
        let hasher = hasher(1);
        let costly = DJANGO_S.replace("$1000$", "$5000001$");
        let endless = DJANGO_S.replace("$1000$", "$4294967296$");
        let none = DJANGO_S.replace("$1000$", "$0$");
        let (whole, _) = DJANGO_S.split_at(DJANGO_S.len() - 2);
        for stored in [
            &costly,
            &endless,
            &none,
            whole,
            "pbkdf2_sha256$",
            "pbkdf2_sha256$1000$a$",
        ] {
            assert!(
                !hasher
                    .verify("naïve password", Some(stored), later())
                    .unwrap(),
                "{stored}"
            );
        }
    }

    fn take_all_cores(hasher: &Hasher) -> Vec<Core<'_>> {
        let cores = (0..hasher.cores).map(|_| hasher.acquire_core(later()).unwrap());
        cores.collect()
    }

    #[test]
    fn a_full_queue_refuses_and_a_freed_core_is_given_on() {
        let hasher = hasher(0);
        let cores = take_all_cores(&hasher);
        assert!(matches!(hasher.acquire_core(later()), Err(Error::Busy)));
        drop(cores);
        assert!(hasher.acquire_core(later()).is_ok());
    }

    #[test]
    fn one_core_verifies_and_hashes_without_a_second_wait() {
        let hasher = hasher(0);
        let cores = take_all_cores(&hasher);
        let core = cores.first().unwrap();
        assert!(core.verify("naïve password", Some(DJANGO_S)));
        assert!(!is_foreign(&core.hash("naïve password").unwrap()));
    }

    #[test]
    fn one_that_waits_past_its_deadline_is_refused() {
        let hasher = hasher(1);
        let cores = take_all_cores(&hasher);
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(matches!(hasher.acquire_core(soon), Err(Error::Busy)));
        assert_eq!(hasher.queue.lock().unwrap().waiting, 0);
        drop(cores);
        // One whose time is up hashes nothing, even if a core is free.
        assert!(matches!(hasher.hash("x", soon), Err(Error::Busy)));
    }

    #[test]
    fn weaknesses_are_named_in_django_s_order() {
        assert_eq!(COMMON_PASSWORDS.len(), 19_640);
        assert_eq!(find_weaknesses("123").len(), 3);
        assert_eq!(
            find_weaknesses("PassWord123"),
            ["This password is too common."]
        );
        assert_eq!(
            find_weaknesses("٨٣٧٤٩٢٧٤²²"),
            ["This password is entirely numeric."]
        );
        assert!(find_weaknesses("aB3$xyzq").is_empty());
    }
}
