//! The background check of the database: a thread of its own runs a statement twice a second, so that readiness is known
//! without waiting, and a server that takes statements and returns none is noticed without requests.
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::connect::{ConnectionConfig, Connector};
use super::executor::Executor;
use super::session::{Cause, Session, parameters};
use super::{Sql, sql};

const READY: Sql = sql!("probes/ready", []);

/// From the end of one check to the start of the next.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a check waits for the result: somewhat longer than the server's own limit in [`SETTINGS`].
const TIMEOUT: Duration = Duration::from_millis(3100);

/// The session's settings, in the form of the server's command line.
const SETTINGS: &str = "-c statement_timeout=3000";

/// An older success no longer counts.
const MAX_AGE: Duration = Duration::from_secs(2);

/// The result of the last checks. The thread of the checks writes it, handlers read it.
pub struct Readiness {
    last_success: Mutex<Option<Instant>>,
}

impl Readiness {
    /// Whether the last check succeeded; while a check is running, the one before it.
    pub fn is_ready(&self) -> bool {
        let last_success = *self.last_success.lock();
        last_success.is_some_and(|instant| instant.elapsed() < MAX_AGE)
    }
}

/// Starts the thread, which ends when the executor is dropped.
///
/// # Errors
/// If the system refuses another thread.
pub fn start_checks(
    connection: &ConnectionConfig,
    executor: &Arc<Executor>,
) -> std::io::Result<Arc<Readiness>> {
    // The database is available when this is called: the schema was just checked.
    let readiness = Arc::new(Readiness {
        last_success: Mutex::new(Some(Instant::now())),
    });
    let result = Arc::clone(&readiness);
    let connector = connection.connector(SETTINGS);
    let executor = Arc::downgrade(executor);
    thread::Builder::new()
        .name("readiness".to_owned())
        .spawn(move || {
            let mut session = None;
            while check(&connector, &executor, &mut session, &result).is_some() {
                thread::sleep(INTERVAL);
            }
        })?;
    Ok(readiness)
}

/// Runs one check. If its session turns out to have ended, tries once more on another. Returns `None` once the executor
/// is gone.
fn check(
    connector: &Connector,
    executor: &Weak<Executor>,
    session: &mut Option<Session>,
    readiness: &Readiness,
) -> Option<()> {
    let executor = executor.upgrade()?;
    for _ in 0..2 {
        if session.is_none() {
            let client = connector.connect();
            *session = client
                .and_then(|client| Session::start(client, executor.abandoned_reads()))
                .ok();
        }
        let Some(open) = session else { break };
        let sent = Instant::now();
        let cause = match open.query(READY, &parameters![], None, sent + TIMEOUT) {
            Ok(_) => {
                executor.record_response();
                *readiness.last_success.lock() = Some(Instant::now());
                return Some(());
            }
            Err(failure) => failure.cause,
        };
        *session = None;
        if cause == Cause::Hung {
            executor.record_timeout(sent);
        }
        if !matches!(cause, Cause::EndedIdle | Cause::Lost) {
            break;
        }
    }
    *readiness.last_success.lock() = None;
    Some(())
}
