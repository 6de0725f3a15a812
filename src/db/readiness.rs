//! The background check of the database, from which readiness is answered without waiting. It also notices a server that
//! takes statements and answers none.
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::database::Database;
use super::executor::Executor;
use super::session::{Cause, Parameters, Session, parameters};
use super::{Sql, sql};

const READY: Sql = sql!("probes/ready", []);

/// From the end of one check to the start of the next.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a check waits for its answer.
const TIMEOUT: Duration = Duration::from_millis(3100);

/// The session's settings, in the form of the server's command line.
const SETTINGS: &str = "-c statement_timeout=3000";

/// An older success no longer counts.
const MAX_AGE: Duration = Duration::from_secs(2);

/// What the last checks found.
pub struct Readiness {
    last_success: Mutex<Option<Instant>>,
}

impl Readiness {
    /// Whether the database answered the last check, or the one before if that is under way.
    pub fn is_ready(&self) -> bool {
        let last_success = *self
            .last_success
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        last_success.is_some_and(|instant| instant.elapsed() < MAX_AGE)
    }

    fn set(&self, last_success: Option<Instant>) {
        *self
            .last_success
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = last_success;
    }
}

/// Checks the database, on a session of its own, in a thread that ends with the executor.
///
/// # Errors
/// If the system has no threads left.
pub fn start_checks(
    database: &Database,
    executor: &Arc<Executor>,
) -> std::io::Result<Arc<Readiness>> {
    // Whoever starts the checks has just reached the database.
    let readiness = Arc::new(Readiness {
        last_success: Mutex::new(Some(Instant::now())),
    });
    let (database, executor, found) = (
        database.clone(),
        Arc::downgrade(executor),
        Arc::clone(&readiness),
    );
    thread::Builder::new()
        .name("readiness".to_owned())
        .spawn(move || {
            let mut session = None;
            while check(&database, &executor, &mut session, &found).is_some() {
                thread::sleep(INTERVAL);
            }
        })?;
    Ok(readiness)
}

/// One check; `None` once there is nothing to check for. If its session turns out to have ended, it is made once more on
/// another.
fn check(
    database: &Database,
    executor: &Weak<Executor>,
    session: &mut Option<Session>,
    readiness: &Readiness,
) -> Option<()> {
    let executor = executor.upgrade()?;
    for _ in 0..2 {
        if session.is_none() {
            // A connection attempt has a deadline of its own.
            let opened = database.connect(SETTINGS);
            *session = opened
                .and_then(|opened| Session::start(opened, executor.abandoned_count()))
                .ok();
        }
        let Some(open) = session else { break };
        let sent = Instant::now();
        let none: Parameters = parameters![];
        let cause = match open.query(READY, &none, None, sent + TIMEOUT) {
            Ok(_) => {
                executor.note_answer();
                readiness.set(Some(Instant::now()));
                return Some(());
            }
            Err(failure) => failure.cause,
        };
        *session = None;
        if cause == Cause::Hung {
            executor.note_silence(sent);
        }
        if !matches!(cause, Cause::EndedIdle | Cause::Lost) {
            break;
        }
    }
    readiness.set(None);
    Some(())
}
