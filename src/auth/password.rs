//! Password hashing, with a limit on concurrent hashes, and Django's password validators. Does not depend on users or HTTP.
//!
//! New hashes are bcrypt over SHA-256, as Django's BCryptSHA256PasswordHasher makes them. Django's default, PBKDF2, is only
//! verified, for imported users.
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use parking_lot::{Condvar, Mutex};
use pbkdf2::pbkdf2_hmac_array;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::python_text;
use crate::telemetry::metrics;

/// Django's list of common passwords (django/contrib/auth/common-passwords.txt.gz of Django 5.2, BSD-3-Clause,
/// see common_passwords.LICENSE): one per line, in lower case.
static COMMON_PASSWORDS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// The minimum length of a password in code points.
pub const MIN_LENGTH: usize = 8;

/// Django's prefix for bcrypt over the hexadecimal SHA-256 of the password. The digest has 64 bytes, fewer than the 72 that
/// bcrypt uses of its input.
const PREFIX: &str = "bcrypt_sha256$";

/// Django's prefix for PBKDF2 with HMAC-SHA-256, its default. Iterations, salt and key follow, separated by `$`.
const PBKDF2_PREFIX: &str = "pbkdf2_sha256$";

/// Stored hashes with more PBKDF2 iterations match no password: Django 5.2 uses 1,000,000, and a manipulated row must not
/// occupy a core.
const MAX_PBKDF2_ITERATIONS: u32 = 5_000_000;

/// The time limit of a command for a core and one hash.
pub const HASH_TIMEOUT: Duration = Duration::from_secs(8);

/// Stored hashes with a higher bcrypt cost than this and the configured one match no password: cost 31 in a manipulated row
/// would occupy a core for days. Cost 16 takes 7 s on the machine where it was measured.
const MAX_STORED_COST: u32 = 16;

/// The lowest cost that bcrypt defines; the library refuses a lower one.
const MIN_STORED_COST: u32 = 4;

/// The names of Django's hashers, which precede the first `$` of a stored hash.
const DJANGO_ALGORITHMS: [&str; 11] = [
    "pbkdf2_sha256",
    "pbkdf2_sha1",
    "argon2",
    "bcrypt_sha256",
    "bcrypt",
    "scrypt",
    "md5",
    "sha1",
    "unsalted_md5",
    "unsalted_sha1",
    "crypt",
];

/// Why a password could not be hashed or verified.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// No core was free before the deadline, or too many others wait for one.
    #[error("too many passwords wait for a core")]
    Busy,
    /// bcrypt failed, as without randomness.
    #[error("bcrypt: {0}")]
    Bcrypt(#[from] bcrypt::BcryptError),
}

/// Options of a [`Hasher`].
#[derive(Clone, Copy, Debug)]
pub struct HashingOptions {
    /// bcrypt's cost, 4 to 31: a hash takes 2^cost rounds.
    pub bcrypt_cost: u32,
    /// The number of callers that may wait for a core; further ones get [`HashError::Busy`] at once.
    pub max_waiting: usize,
}

/// Hashes and verifies passwords, at most one per core at a time, so that sign-ins leave time for other requests. Workers
/// share it.
pub struct Hasher {
    options: HashingOptions,
    cores: usize,
    permits: Mutex<PermitCounts>,
    /// Notified when a permit is released.
    released: Condvar,
    /// The password of an unknown user is verified against this valid hash, which no known password has.
    dummy_hash: String,
}

#[derive(Default)]
struct PermitCounts {
    running: usize,
    waiting: usize,
}

impl Hasher {
    /// Creates a hasher with as many permits as there are cores.
    pub fn new(options: HashingOptions) -> Hasher {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        // With salt and key of zeros a verification takes as long as with any other hash of this cost.
        let zeros = ".".repeat(53);
        Hasher {
            options,
            cores,
            permits: Mutex::default(),
            released: Condvar::new(),
            dummy_hash: format!("$2b${:02}${zeros}", options.bcrypt_cost),
        }
    }

    /// Hashes a password, in the format that Django stores: `bcrypt_sha256$$2b$10$...`. Waits for a core until `deadline`.
    ///
    /// # Errors
    /// [`HashError::Busy`] if it gets no core.
    pub fn hash(&self, password: &str, deadline: Instant) -> Result<String, HashError> {
        self.acquire(deadline)?.hash(password)
    }

    /// Waits for a core until `deadline`, and records the wait in the metrics.
    ///
    /// # Errors
    /// [`HashError::Busy`] if it gets no core.
    pub fn acquire(&self, deadline: Instant) -> Result<HashingPermit<'_>, HashError> {
        let started = Instant::now();
        let permit = self.wait_for_permit(deadline);
        match permit {
            Ok(_) => metrics::count_hash_wait(started.elapsed()),
            Err(_) => metrics::count_hash_refusal(),
        }
        permit
    }

    /// The number of permits in use and of callers that wait for one, for the metrics.
    pub fn queue_lengths(&self) -> (usize, usize) {
        let permits = self.permits.lock();
        (permits.running, permits.waiting)
    }

    fn wait_for_permit(&self, deadline: Instant) -> Result<HashingPermit<'_>, HashError> {
        let mut permits = self.permits.lock();
        if deadline <= Instant::now() {
            return Err(HashError::Busy);
        }
        if permits.running >= self.cores {
            if permits.waiting >= self.options.max_waiting {
                return Err(HashError::Busy);
            }
            permits.waiting += 1;
            let all_in_use = |permits: &mut PermitCounts| permits.running >= self.cores;
            self.released
                .wait_while_until(&mut permits, all_in_use, deadline);
            permits.waiting -= 1;
            if permits.running >= self.cores {
                return Err(HashError::Busy);
            }
        }
        permits.running += 1;
        Ok(HashingPermit(self))
    }
}

/// The right to hash on one core, released on drop.
pub struct HashingPermit<'a>(&'a Hasher);

impl HashingPermit<'_> {
    /// Hashes a password as [`Hasher::hash`] does.
    ///
    /// # Errors
    /// [`HashError::Bcrypt`] if bcrypt fails.
    pub fn hash(&self, password: &str) -> Result<String, HashError> {
        let hash = bcrypt::hash(digest(password), self.0.options.bcrypt_cost)?;
        Ok(format!("{PREFIX}{hash}"))
    }

    /// Whether the password has this stored hash. Without a stored hash (an unknown user) it has not, and the check takes as
    /// long as with a wrong password.
    pub fn verify(&self, password: &str, stored: Option<&str>) -> bool {
        let bcrypt_cost = self.0.options.bcrypt_cost;
        let hash = match stored.and_then(|stored| StoredHash::parse(stored, bcrypt_cost)) {
            Some(StoredHash::Pbkdf2(hash)) => return hash.matches(password),
            Some(StoredHash::Bcrypt(hash)) => Some(hash),
            None => None,
        };
        let matches = bcrypt::verify(digest(password), hash.unwrap_or(&self.0.dummy_hash));
        matches.unwrap_or(false) && hash.is_some()
    }
}

impl Drop for HashingPermit<'_> {
    fn drop(&mut self) {
        self.0.permits.lock().running -= 1;
        self.0.released.notify_one();
    }
}

/// Whether the stored hash was made by another algorithm and should be replaced.
pub fn needs_rehash(stored: &str) -> bool {
    !stored.starts_with(PREFIX)
}

/// Returns a name for the kind of a stored hash that no password matches at a sign-in with this configured bcrypt cost;
/// `None` if some password may match it.
///
/// The name is one of Django's algorithms, `no password` (Django's mark for an account without one) or `unknown`. It is
/// never a part of the stored text, which may be a password in plain text.
pub fn describe_unverifiable(stored: &str, bcrypt_cost: u32) -> Option<&'static str> {
    if StoredHash::parse(stored, bcrypt_cost).is_some() {
        return None;
    }
    if stored.starts_with('!') {
        return Some("no password");
    }
    let algorithm = stored.split_once('$').map(|(algorithm, _)| algorithm);
    let mut known = DJANGO_ALGORITHMS.into_iter();
    Some(
        known
            .find(|known| algorithm == Some(*known))
            .unwrap_or("unknown"),
    )
}

/// A stored hash that some password may match.
enum StoredHash<'a> {
    /// Such as `$2b$10$...`.
    Bcrypt(&'a str),
    Pbkdf2(Pbkdf2Hash<'a>),
}

struct Pbkdf2Hash<'a> {
    iterations: u32,
    salt: &'a str,
    key: [u8; 32],
}

impl<'a> StoredHash<'a> {
    /// `None` if the stored text is malformed, such as Django's "!" for an unusable password, or takes too long to verify.
    fn parse(stored: &'a str, bcrypt_cost: u32) -> Option<StoredHash<'a>> {
        if let Some(hash) = stored.strip_prefix(PBKDF2_PREFIX) {
            return Pbkdf2Hash::parse(hash).map(StoredHash::Pbkdf2);
        }
        let hash = stored.strip_prefix(PREFIX)?;
        let parts: bcrypt::HashParts = hash.parse().ok()?;
        let costs = MIN_STORED_COST..=MAX_STORED_COST.max(bcrypt_cost);
        let is_allowed = costs.contains(&parts.get_cost());
        is_allowed.then_some(StoredHash::Bcrypt(hash))
    }
}

impl<'a> Pbkdf2Hash<'a> {
    fn parse(hash: &'a str) -> Option<Pbkdf2Hash<'a>> {
        let mut parts = hash.split('$');
        let (iterations, salt, key) = (parts.next()?, parts.next()?, parts.next()?);
        let iterations = iterations.parse().ok()?;
        let key = BASE64_STANDARD.decode(key).ok()?.try_into().ok()?;
        let is_allowed = (1..=MAX_PBKDF2_ITERATIONS).contains(&iterations);
        is_allowed.then_some(Pbkdf2Hash {
            iterations,
            salt,
            key,
        })
    }

    fn matches(&self, password: &str) -> bool {
        let (password, salt) = (password.as_bytes(), self.salt.as_bytes());
        let computed = pbkdf2_hmac_array::<Sha256, 32>(password, salt, self.iterations);
        computed.ct_eq(&self.key).into()
    }
}

fn digest(password: &str) -> String {
    Sha256::digest(password.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The messages of Django's MinimumLengthValidator, CommonPasswordValidator and NumericPasswordValidator, in this order; none
/// for a good password.
pub fn validate(password: &str) -> Vec<&'static str> {
    let mut messages = Vec::new();
    if password.chars().count() < MIN_LENGTH {
        messages.push("This password is too short. It must contain at least 8 characters.");
    }
    if COMMON_PASSWORDS.contains(python_text::strip(&password.to_lowercase())) {
        messages.push("This password is too common.");
    }
    if !password.is_empty() && password.chars().all(python_text::is_digit) {
        messages.push("This password is entirely numeric.");
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher(max_waiting: usize) -> Hasher {
        Hasher::new(HashingOptions {
            bcrypt_cost: 4,
            max_waiting,
        })
    }

    fn later() -> Instant {
        Instant::now() + HASH_TIMEOUT
    }

    #[test]
    fn hash_verifies_only_its_own_password() {
        let hasher = hasher(1);
        let permit = hasher.acquire(later()).unwrap();
        let long = "x".repeat(72);
        let stored = permit.hash(&format!("{long}a")).unwrap();
        assert!(stored.starts_with("bcrypt_sha256$$2b$04$"));
        assert!(permit.verify(&format!("{long}a"), Some(&stored)));
        assert!(!permit.verify(&format!("{long}b"), Some(&stored)));
        assert!(!permit.verify("x", None));
        assert!(!permit.verify("x", Some("!unusable")));
    }

    #[test]
    fn dummy_hash_is_a_valid_bcrypt_hash() {
        for cost in [4, 5] {
            let hasher = Hasher::new(HashingOptions {
                bcrypt_cost: cost,
                max_waiting: 0,
            });
            let parts: bcrypt::HashParts = hasher.dummy_hash.parse().unwrap();
            assert_eq!(parts.get_cost(), cost);
            assert!(!bcrypt::verify(digest("x"), &hasher.dummy_hash).unwrap());
        }
    }

    #[test]
    fn stored_hash_with_too_high_cost_matches_no_password() {
        let hasher = hasher(0);
        let permit = hasher.acquire(later()).unwrap();
        let stored = permit.hash("x").unwrap();
        assert!(permit.verify("x", Some(&stored)));
        // Computing this one would take months.
        assert!(!permit.verify("x", Some(&stored.replace("$04$", "$31$"))));
    }

    /// By Django 5.2: `PBKDF2PasswordHasher().encode("naïve password", "saltsalt", 1000)`.
    const DJANGO_HASH: &str =
        "pbkdf2_sha256$1000$saltsalt$ZbYrW2qEUunsgVZjnP7LeJwU2YmZnoQGdmHoUPQzodM=";

    #[test]
    fn pbkdf2_hash_of_django_verifies_and_needs_a_rehash() {
        let hasher = hasher(1);
        let verify = |password, stored: &str| {
            let permit = hasher.acquire(later()).unwrap();
            permit.verify(password, Some(stored))
        };
        assert!(verify("naïve password", DJANGO_HASH));
        assert!(!verify("naive password", DJANGO_HASH));
        assert!(needs_rehash(DJANGO_HASH));
        assert!(!needs_rehash(
            &hasher.hash("naïve password", later()).unwrap()
        ));
    }

    #[test]
    fn malformed_or_too_expensive_hash_matches_no_password() {
        let hasher = hasher(1);
        let permit = hasher.acquire(later()).unwrap();
        let expensive = DJANGO_HASH.replace("$1000$", "$5000001$");
        let overflowing = DJANGO_HASH.replace("$1000$", "$4294967296$");
        let zero = DJANGO_HASH.replace("$1000$", "$0$");
        let (truncated, _) = DJANGO_HASH.split_at(DJANGO_HASH.len() - 2);
        for stored in [
            &expensive,
            &overflowing,
            &zero,
            truncated,
            "pbkdf2_sha256$",
            "pbkdf2_sha256$1000$a$",
        ] {
            assert!(!permit.verify("naïve password", Some(stored)), "{stored}");
            assert_eq!(describe_unverifiable(stored, 4), Some("pbkdf2_sha256"));
        }
    }

    #[test]
    fn unverifiable_hashes_are_described_without_a_part_of_them() {
        let zeros = ".".repeat(53);
        let bcrypt = |cost: &str| format!("bcrypt_sha256$$2b${cost}${zeros}");
        for (stored, configured_cost) in [
            (DJANGO_HASH.to_owned(), 10),
            (bcrypt("04"), 10),
            (bcrypt("16"), 10),
            (bcrypt("17"), 17),
        ] {
            assert_eq!(describe_unverifiable(&stored, configured_cost), None);
        }
        for (stored, described) in [
            (bcrypt("17").as_str(), "bcrypt_sha256"),
            (bcrypt("03").as_str(), "bcrypt_sha256"),
            (bcrypt("xx").as_str(), "bcrypt_sha256"),
            ("bcrypt_sha256$x", "bcrypt_sha256"),
            ("pbkdf2_sha256$600000$s", "pbkdf2_sha256"),
            (
                "argon2$argon2id$v=19$m=102400,t=2,p=8$c2FsdA$aGFzaA",
                "argon2",
            ),
            ("md5$salt$d41d8cd98f00b204e9800998ecf8427e", "md5"),
            ("!", "no password"),
            ("!hunter2", "no password"),
            ("", "unknown"),
            ("argon2", "unknown"),
            ("hunter2-plain", "unknown"),
            ("hunter2$x", "unknown"),
            ("d41d8cd98f00b204e9800998ecf8427e", "unknown"),
        ] {
            assert_eq!(
                describe_unverifiable(stored, 10),
                Some(described),
                "{stored}"
            );
        }
    }

    fn acquire_all(hasher: &Hasher) -> Vec<HashingPermit<'_>> {
        let permits = (0..hasher.cores).map(|_| hasher.acquire(later()).unwrap());
        permits.collect()
    }

    #[test]
    fn full_queue_rejects_and_released_permit_can_be_acquired() {
        let hasher = hasher(0);
        let permits = acquire_all(&hasher);
        assert!(matches!(hasher.acquire(later()), Err(HashError::Busy)));
        drop(permits);
        assert!(hasher.acquire(later()).is_ok());
    }

    #[test]
    fn one_permit_is_enough_to_verify_and_rehash() {
        let hasher = hasher(0);
        let permits = acquire_all(&hasher);
        let permit = permits.first().unwrap();
        assert!(permit.verify("naïve password", Some(DJANGO_HASH)));
        assert!(!needs_rehash(&permit.hash("naïve password").unwrap()));
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let hasher = hasher(1);
        let permits = acquire_all(&hasher);
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(matches!(hasher.acquire(soon), Err(HashError::Busy)));
        assert_eq!(hasher.permits.lock().waiting, 0);
        drop(permits);
        // After its deadline a caller gets no permit, even if a core is free.
        assert!(matches!(hasher.hash("x", soon), Err(HashError::Busy)));
    }

    #[test]
    fn validators_run_in_the_order_of_django() {
        assert_eq!(COMMON_PASSWORDS.len(), 19_640);
        assert_eq!(validate("123").len(), 3);
        assert_eq!(validate("PassWord123"), ["This password is too common."]);
        assert_eq!(
            validate("٨٣٧٤٩٢٧٤²²"),
            ["This password is entirely numeric."]
        );
        assert!(validate("aB3$xyzq").is_empty());
    }
}
