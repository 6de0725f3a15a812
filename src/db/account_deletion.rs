//! Deletes accounts with all their movies, however many those are.
//!
//! An account with up to [`MAX_WHOLE`] movies is deleted by one statement. A larger one is deleted by parts: the first
//! statement makes it unusable (its user cannot sign in, its tokens are refused, its name and address are free), and
//! marks its row with `is_active` null. Then its movies are deleted [`MAX_PART`] at a time, each part in a transaction of its
//! own with a pause after it, and at last the row:
//!
//! ```text
//! users/delete_account -+-> deleted
//!                       +-> marked -> users/delete_some_movies, again and again -> users/delete_emptied -> deleted
//! ```
//!
//! In the service, a thread of its own does so ([`start_thread`]). A deletion wakes it; once a minute, and at its start, it
//! looks for accounts that a process left unfinished, another instance's too. Several instances may delete the movies of one
//! account at the same time: each passes over the rows that another has locked.
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Row;

use super::executor::Executor;
use super::session::{Parameters, parameters};
use super::{Database, Error, RequestDatabase, Sql, decode, first_row, get, sql};

const DELETE_ACCOUNT: Sql = sql!(Write "users/delete_account", [INT8, INT8, INT8]);
const DELETE_SOME_MOVIES: Sql = sql!(Write "users/delete_some_movies", [INT8, INT8, INT8]);
const DELETE_EMPTIED: Sql = sql!(Write "users/delete_emptied", [INT8, INT8]);
const FIND_DELETED: Sql = sql!("users/find_deleted", []);

/// The most movies of an account that is deleted by one statement. With 1000 movies the statement takes 3 ms on an idle
/// core, and 11 ms on a busy one.
const MAX_WHOLE: i64 = 1000;

/// The movies of one part. A part of 500 takes 5 ms on an idle core, one of 1000 takes 8 ms; while it runs, other writes of
/// the same slot of `movie_counts` wait for it.
const MAX_PART: i64 = 500;

/// The pause after a part is as long as the part took, within these limits, so that other statements find the server idle at
/// least half of the time.
const MIN_PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The most attempts in succession that delete nothing, each followed by the longest pause; then the movies are left for
/// later.
const MAX_FAILURES: u32 = 5;

/// How long one statement of the thread may wait for a session and its result.
const STATEMENT_TIME: Duration = Duration::from_secs(9);

/// How often the thread looks for accounts that another process left unfinished.
const INTERVAL: Duration = Duration::from_secs(60);

/// How soon it tries again while the database is unavailable.
const OUTAGE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a statement is run that another transaction's locks prevented.
const MAX_ATTEMPTS: u32 = 3;

/// A deletion that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The number of movies that the user had.
    pub movie_count: i64,
    /// Whether they are deleted already. If not, the thread of [`Database::start_deletions`] deletes them, or
    /// [`delete_remaining`].
    pub is_complete: bool,
}

/// Deletes an account; `None` if there is none, or the generation of its valid tokens is not the given one. From then on no
/// statement finds the user.
///
/// # Errors
/// If the database fails.
pub fn delete(
    database: RequestDatabase,
    user_id: i64,
    token_generation: Option<i64>,
) -> Result<Option<Deletion>, Error> {
    let parameters = parameters![user_id, token_generation, MAX_WHOLE];
    let rows = retry(|| database.run(DELETE_ACCOUNT, &parameters))?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let deletion = decode!(row, &DELETE_ACCOUNT => Deletion { movie_count, is_complete });
    if !deletion.is_complete
        && let Some(waker) = database.database.deletion_waker.get()
    {
        // Full if the thread is to wake already.
        let _ = waker.try_send(());
    }
    Ok(Some(deletion))
}

/// Deletes the movies of a deleted account and its row. Returns how many movies this call deleted.
///
/// # Errors
/// If the database fails, or other transactions hold locks on the movies for long.
pub fn delete_remaining(database: &Database, user_id: i64) -> Result<i64, Error> {
    delete_parts(&database.executor, user_id)
}

/// Starts the thread, which ends when the returned sender is dropped. A message to it wakes the thread.
///
/// # Errors
/// If the system refuses another thread.
pub(super) fn start_thread(executor: &Arc<Executor>) -> std::io::Result<SyncSender<()>> {
    let (waker, wakes) = sync_channel(1);
    let executor = Arc::downgrade(executor);
    thread::Builder::new()
        .name("deletions".to_owned())
        .spawn(move || run_thread(&executor, &wakes))?;
    Ok(waker)
}

fn run_thread(executor: &Weak<Executor>, wakes: &Receiver<()>) {
    loop {
        let Some(executor) = executor.upgrade() else {
            return;
        };
        let interval = match finish_deletions(&executor) {
            Ok(()) => INTERVAL,
            // The executor logs the beginning and the end of an outage.
            Err(error) if error.is_outage() => OUTAGE_INTERVAL,
            Err(error) => {
                log::warn!("movies of deleted users remain for now: {error}");
                INTERVAL
            }
        };
        drop(executor);
        if wakes.recv_timeout(interval) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// Deletes what remains of all deleted accounts.
fn finish_deletions(executor: &Executor) -> Result<(), Error> {
    for row in run(executor, FIND_DELETED, &parameters![])? {
        let user_id = get(&row, "id", &FIND_DELETED)?;
        let start = Instant::now();
        let movie_count = delete_parts(executor, user_id)?;
        let seconds = start.elapsed().as_secs_f64();
        log::info!("deleted {movie_count} movies of the deleted user {user_id} in {seconds:.1} s");
    }
    Ok(())
}

/// Deletes the movies of a marked account part by part, in the order of their ids, and then the account's row.
fn delete_parts(executor: &Executor, user_id: i64) -> Result<i64, Error> {
    let mut deleted = 0;
    let mut last_id = 0;
    let mut failures = 0;
    loop {
        let start = Instant::now();
        match delete_part(executor, user_id, last_id) {
            Ok(Part::Last(movie_count)) => return Ok(deleted + movie_count),
            Ok(Part::Movies {
                movie_count,
                end_id,
            }) => {
                deleted += movie_count;
                last_id = end_id;
                if movie_count > 0 {
                    failures = 0;
                }
            }
            Ok(Part::Locked) => {
                last_id = 0;
                failures += 1;
            }
            Err(Error::RolledBack(_) | Error::Blocked(_)) if failures < MAX_FAILURES => {
                failures += 1;
            }
            Err(error) => return Err(error),
        }
        if failures > MAX_FAILURES {
            let reason = "other transactions hold the movies of a deleted user".to_owned();
            return Err(Error::Blocked(reason));
        }
        thread::sleep(match failures {
            0 => start.elapsed().clamp(MIN_PAUSE, MAX_PAUSE),
            _ => MAX_PAUSE,
        });
    }
}

enum Part {
    /// The movies up to this id are deleted, except those that other transactions hold.
    Movies { movie_count: i64, end_id: i64 },
    /// The end is reached, and other transactions hold or created movies before it.
    Locked,
    /// The account's row is deleted, with this number of movies.
    Last(i64),
}

/// Deletes up to [`MAX_PART`] movies after `last_id`, or, if there are none, the account's row.
fn delete_part(executor: &Executor, user_id: i64, last_id: i64) -> Result<Part, Error> {
    let parameters = parameters![user_id, last_id, MAX_PART];
    let rows = run(executor, DELETE_SOME_MOVIES, &parameters)?;
    let row = first_row(&rows, &DELETE_SOME_MOVIES)?;
    if let Some(end_id) = get(row, "last_id", &DELETE_SOME_MOVIES)? {
        let movie_count = get(row, "movie_count", &DELETE_SOME_MOVIES)?;
        return Ok(Part::Movies {
            movie_count,
            end_id,
        });
    }
    let rows = run(executor, DELETE_EMPTIED, &parameters![user_id, MAX_PART])?;
    let row = first_row(&rows, &DELETE_EMPTIED)?;
    if get(row, "remains", &DELETE_EMPTIED)? {
        return Ok(Part::Locked);
    }
    // null if another instance deleted the row.
    let movie_count: Option<i64> = get(row, "movie_count", &DELETE_EMPTIED)?;
    Ok(Part::Last(movie_count.unwrap_or(0)))
}

fn run(executor: &Executor, sql: Sql, parameters: &Parameters) -> Result<Vec<Row>, Error> {
    let rows = executor.run(sql, parameters, Instant::now() + STATEMENT_TIME);
    rows.map_err(|failure| failure.error)
}

/// Runs a statement again if another transaction's locks prevented it: the user's own requests may delete movies at the same
/// moment, in another order.
fn retry<T>(statement: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 1..MAX_ATTEMPTS {
        match statement() {
            Err(Error::RolledBack(_) | Error::Blocked(_)) => {}
            result => return result,
        }
    }
    statement()
}
