//! The database: pool, connections, migrations at start, error classes. The only room, with its two neighbours,
//! that names SQL files or PostgreSQL's types.
mod address;
pub mod batch;
mod connection;
mod connection_string;
mod database;
mod error;
pub mod import;
pub mod lists;
pub mod movies;
mod schema;
pub mod users;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::Row;
use postgres::types::{ToSql, Type};
use r2d2::event::{CheckoutEvent, TimeoutEvent};
use r2d2::{HandleEvent, Pool, PooledConnection};

use self::batch::Batch;
use self::connection::{Lost, Manager};
pub use self::database::Database;
pub use self::error::Error;
use self::error::classify;
use self::lists::FirstPages;
use self::movies::{Creations, Questions, Updates};
pub use self::schema::{State, inspect, migrate};
use crate::{metrics, trace};

/// One statement: its name in the log, and its text, compiled in from the file of that name.
struct Sql {
    name: &'static str,
    text: &'static str,
    /// Its parameters' types.
    types: &'static [Type],
}

/// The statement in `sql/NAME.sql`, with the types of its parameters.
macro_rules! sql {
    ($name:literal, [$($type:ident),*]) => {
        $crate::store::Sql {
            name: $name,
            text: include_str!(concat!("../../sql/", $name, ".sql")),
            types: &[$(::postgres::types::Type::$type),*],
        }
    };
}
use sql;

const READY: Sql = sql!("probes/ready", []);

/// Where the database is and how long it is waited for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address, user, password and database.
    pub database: Database,
    /// Connections at the most.
    pub pool_size: u32,
    /// How long a request waits for a free connection.
    pub checkout_deadline: Duration,
    /// How long a statement may run.
    pub statement_deadline: Duration,
    /// How long a start waits for a database that is not there yet.
    pub start_deadline: Duration,
    /// Requests that one statement answers together at the most; 1 answers each by itself.
    pub batch_size: usize,
}

/// The pool of connections, and the queues in front of the statements that are answered in batches.
pub struct Store {
    pool: Pool<Manager>,
    is_reachable: Arc<AtomicBool>,
    checkout_deadline: Duration,
    outage: Mutex<Outage>,
    reads: Questions,
    deletions: Questions,
    updates: Updates,
    creations: Creations,
    first_pages: FirstPages,
}

/// The pool's connections at a moment.
pub struct PoolState {
    /// At the most.
    pub size: u32,
    /// Open ones.
    pub open: u32,
    /// Open ones that nobody uses.
    pub idle: u32,
}

/// Counts how long connections were waited for; called by the thread that waited.
#[derive(Debug)]
struct Waits;

impl HandleEvent for Waits {
    fn handle_checkout(&self, event: CheckoutEvent) {
        metrics::count_checkout(event.duration());
        trace::note_pool(event.duration());
    }

    fn handle_timeout(&self, event: TimeoutEvent) {
        metrics::count_checkout_timeout();
        trace::note_pool(event.timeout());
    }
}

/// What is known of the database's absences.
struct Outage {
    is_away: bool,
    /// Connections made before are not trusted: one of their age was lost.
    distrusted_until: Instant,
}

/// Keys in one batch. Past this the gain is gone, and a batch takes long enough to be felt.
pub const BATCH_SIZE: usize = 64;

/// Reads that are worth a batch beside one that runs. Measured with 32 clients: against any number, and so smaller batches,
/// eight gave a tenth more first pages and a twentieth more reads.
const WORTHWHILE_READS: usize = 8;

/// How long a request waits for a connection while none can be made: the database is away, and the pool keeps trying.
const AWAY_DEADLINE: Duration = Duration::from_millis(200);

/// A statement that runs longer holds the next batch of its kind back no more.
const BATCH_PATIENCE: Duration = Duration::from_secs(1);

impl Store {
    /// Waits for the database, brings its schema up to date and fills the pool.
    ///
    /// # Errors
    /// If the database does not answer in time, refuses this user, or a migration fails.
    pub fn open(options: Options) -> Result<Store, Error> {
        migrate(&options.database, options.start_deadline)?;
        let deadline = options.statement_deadline.as_millis();
        let settings =
            format!("-c statement_timeout={deadline} -c plan_cache_mode=force_generic_plan");
        let opened = Instant::now();
        let is_reachable = Arc::new(AtomicBool::new(true));
        let pool = Pool::builder()
            .max_size(options.pool_size)
            .connection_timeout(options.checkout_deadline)
            // A broken connection is noticed when it is used; asking first would double the round trips.
            .test_on_check_out(false)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .event_handler(Box::new(Waits))
            .build_unchecked(Manager::new(
                options.database,
                settings,
                Arc::clone(&is_reachable),
            ));
        let limits = batch::Limits {
            size: options.batch_size,
            lanes: 1,
            worthwhile: 1,
            deadline: options.statement_deadline,
            patience: BATCH_PATIENCE,
        };
        // While the database answers one batch of reads, the next is sent and the last one is handed out. Writes take
        // turns: two batches could wait for each other's rows.
        let read_limits = batch::Limits {
            lanes: 2,
            worthwhile: WORTHWHILE_READS,
            ..limits
        };
        Ok(Store {
            pool,
            is_reachable,
            checkout_deadline: options.checkout_deadline,
            outage: Mutex::new(Outage {
                is_away: false,
                distrusted_until: opened,
            }),
            reads: Batch::new(read_limits),
            deletions: Batch::new(limits),
            updates: Batch::new(limits),
            creations: Batch::new(limits),
            first_pages: Batch::new(read_limits),
        })
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is none in time.
    pub fn check_ready(&self) -> Result<(), Error> {
        self.read(&READY, &[]).map(|_| ())
    }

    /// How many connections there are, and how many of them are free.
    pub fn pool_state(&self) -> PoolState {
        let state = self.pool.state();
        PoolState {
            size: self.pool.max_size(),
            open: state.connections,
            idle: state.idle_connections,
        }
    }

    /// The rows of a statement that changes nothing: if its connection turns out to be lost, it is tried once more on
    /// a fresh one.
    fn read(&self, sql: &Sql, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.run(sql, parameters, true)
    }

    /// The rows of a statement that changes something: it is tried again only if it surely was not sent.
    fn write(&self, sql: &Sql, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.run(sql, parameters, false)
    }

    fn run(
        &self,
        sql: &Sql,
        parameters: &[&(dyn ToSql + Sync)],
        is_repeatable: bool,
    ) -> Result<Vec<Row>, Error> {
        let deadline = Instant::now() + self.checkout_deadline;
        let answer = self.check_out(deadline).and_then(|mut connection| {
            let Lost { error, was_sent } = match connection.query(sql, parameters) {
                Ok(rows) => return Ok(rows),
                Err(lost) => lost,
            };
            let is_lost = connection.is_lost();
            drop(connection);
            if is_lost {
                lock(&self.outage).distrusted_until = Instant::now();
            }
            if !is_lost || (was_sent && !is_repeatable) {
                return Err(classify(sql, &error));
            }
            let rows = self.check_out(deadline)?.query(sql, parameters);
            rows.map_err(|lost| classify(sql, &lost.error))
        });
        self.note_outage(answer.as_ref().err());
        answer
    }

    /// A connection that is not known to be lost.
    fn check_out(&self, deadline: Instant) -> Result<PooledConnection<Manager>, Error> {
        loop {
            let mut left = deadline.saturating_duration_since(Instant::now());
            if !self.is_reachable.load(Ordering::Relaxed) {
                left = left.min(AWAY_DEADLINE);
            }
            let connection = self.pool.get_timeout(left);
            let mut connection =
                connection.map_err(|error| Error::Unavailable(error.to_string()))?;
            if connection.is_trusted(lock(&self.outage).distrusted_until) {
                return Ok(connection);
            }
            // Dropped untrusted, it is closed, and the pool makes another.
        }
    }

    /// An outage is logged once when it begins and once when it ends, not with every request.
    fn note_outage(&self, error: Option<&Error>) {
        let is_away = matches!(error, Some(Error::Unavailable(_)));
        if std::mem::replace(&mut lock(&self.outage).is_away, is_away) == is_away {
            return;
        }
        match error {
            Some(error) => log::warn!("{error}"),
            None => log::info!("the database answers again"),
        }
    }
}

impl Sql {
    fn fault(&self, reason: impl ToString) -> Error {
        Error::Fault {
            statement: self.name,
            reason: reason.to_string(),
        }
    }
}

/// The rows that answer one question of a batch. Whoever asked decodes them, so that the batch's leader is soon free.
type Group = Vec<Row>;

/// A batch's answers: those of a statement over many questions, whose column `place` counts these from 1.
type Groups = Result<Vec<Result<Group, Error>>, Error>;

/// The rows of a batch by the question that each answers. Counts the batch.
fn group_by_place(rows: Vec<Row>, questions: usize, sql: &Sql) -> Groups {
    metrics::count_batch(sql.name, questions);
    trace::note_batch(questions);
    let mut groups: Vec<Group> = (0..questions).map(|_| Group::new()).collect();
    for row in rows {
        let place: i64 = movies::get(&row, "place", sql)?;
        let index = usize::try_from(place - 1).ok();
        let group = index.and_then(|index| groups.get_mut(index));
        group
            .ok_or_else(|| sql.fault("an answer has no question"))?
            .push(row);
    }
    Ok(groups.into_iter().map(Ok).collect())
}

fn only_row<'a>(group: &'a Group, sql: &Sql) -> Result<&'a Row, Error> {
    let row = group.first();
    row.ok_or_else(|| sql.fault("a question has no answer"))
}

/// What is behind the lock is whole between any two statements, so one that a panic poisoned is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
