//! The database's schema: waits for the database, applies the migrations that it lacks, looks at what it can do.
//! Or looks alone, and changes nothing.
use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use serde::Serialize;

use super::error::{classify, describe};
use super::{Database, Error, Sql, sql};

mod migrations {
    refinery::embed_migrations!("sql/migrations");
}

const LOCK_MIGRATIONS: Sql = sql!("schema/lock_migrations", []);
const DESCRIBE_LETTERS: Sql = sql!("schema/describe_letters", []);
const DESCRIBE: Sql = sql!("schema/describe", []);
const LIST_MIGRATIONS: Sql = sql!("schema/list_migrations", []);
const CREATE_SEARCH_INDEX: Sql = sql!("schema/create_search_index", []);

/// How long a command waits for the answers of its own statements, which take milliseconds on a server that answers.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long migrations may take: one that builds an index reads every movie.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Applies the migrations that this database lacks, under a lock: the library takes none, and several instances may
/// start at once. The lock is a transaction's, on a connection of its own: so it goes with either, and a pooler between
/// here and the database keeps none behind. Answers with the names of those that were applied.
///
/// # Errors
/// If the database does not answer in time, refuses this user, or a migration fails.
pub fn migrate(database: &Database, start_timeout: Duration) -> Result<Vec<String>, Error> {
    let database = database.clone();
    within(MIGRATE_TIMEOUT, move || {
        migrate_now(&database, start_timeout)
    })
}

/// Runs the work in a thread of its own, which is left behind when the time is over: the client has no deadline.
fn within<T: Send + 'static>(
    timeout: Duration,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = sync_channel(1);
    let started = thread::Builder::new()
        .name("database".to_owned())
        .spawn(move || _ = sender.send(work()));
    started.map_err(|error| Error::Unavailable(error.to_string()))?;
    receiver.recv_timeout(timeout).unwrap_or_else(|_| {
        let seconds = timeout.as_secs();
        Err(Error::Unavailable(format!(
            "no answer within {seconds} seconds"
        )))
    })
}

fn migrate_now(database: &Database, start_timeout: Duration) -> Result<Vec<String>, Error> {
    let failed = |reason: String| Error::Unavailable(reason);
    let mut client = connect_within(database, start_timeout)?;
    let mut holder = connect_within(database, start_timeout)?;
    let mut lock = holder
        .transaction()
        .map_err(|error| classify(&LOCK_MIGRATIONS, &error))?;
    lock.batch_execute(LOCK_MIGRATIONS.text)
        .map_err(|error| classify(&LOCK_MIGRATIONS, &error))?;
    let report = migrations::migrations::runner().run(&mut client);
    let report = report.map_err(|error| failed(format!("migrations: {error}")))?;
    let applied: Vec<_> = report
        .applied_migrations()
        .iter()
        .map(ToString::to_string)
        .collect();
    for migration in &applied {
        log::info!("migration {migration} applied");
    }
    if let Err(error) = client.batch_execute(CREATE_SEARCH_INDEX.text) {
        let reason = describe(&error);
        log::warn!(
            "searches go without an index: {reason} (see sql/schema/create_search_index.sql)"
        );
    }
    let rows = client.query_typed(DESCRIBE_LETTERS.text, &[]);
    let rows = rows.map_err(|error| classify(&DESCRIBE_LETTERS, &error))?;
    let knows_letters = rows.first().map(|row| row.try_get(0));
    if !matches!(knows_letters, Some(Ok(true))) {
        log::warn!(
            "the database's locale knows only ASCII letters: searches will mind the case of all others \
             (create the database with a UTF-8 locale such as C.UTF-8)"
        );
    }
    Ok(applied)
}

/// What a database is, has and lacks, as one that would serve from it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    /// PostgreSQL's version, such as 15.4.
    pub version: String,
    /// The same as a number, such as 150004.
    pub version_number: i32,
    /// What text is stored as; the service needs UTF8.
    pub encoding: String,
    /// The locale that says which letters are one another's capitals.
    pub locale: String,
    /// Whether upper() knows letters beyond ASCII.
    pub knows_letters: bool,
    /// Whether the server takes writes.
    pub is_writable: bool,
    /// The extensions that searches rest on, and whether each is installed.
    pub extensions: BTreeMap<String, bool>,
    /// Migrations that were applied.
    pub applied: Vec<String>,
    /// Migrations that `migrate`, or the next start, would apply.
    pub pending: Vec<String>,
    /// Applied ones that this program does not know: a later version's.
    pub unknown: Vec<String>,
}

/// Looks at the database and changes nothing.
///
/// # Errors
/// If the database does not answer in time or refuses this user.
pub fn inspect(database: &Database, start_timeout: Duration) -> Result<State, Error> {
    let database = database.clone();
    let timeout = start_timeout + INSPECT_TIMEOUT;
    within(timeout, move || inspect_now(&database, start_timeout))
}

/// Makes sure that the schema is this version's; changes nothing.
///
/// # Errors
/// [`Error::Schema`] if it is not; as [`inspect`] else.
pub fn check_schema(database: &Database, start_timeout: Duration) -> Result<(), Error> {
    let state = inspect(database, start_timeout)?;
    if !state.unknown.is_empty() {
        let unknown = state.unknown.join(", ");
        return Err(Error::Schema(format!(
            "the schema is a later version's: {unknown} is not known here"
        )));
    }
    if !state.pending.is_empty() {
        let pending = state.pending.join(", ");
        return Err(Error::Schema(format!(
            "the schema lacks {pending}: run `movies-api migrate`, or start the service"
        )));
    }
    Ok(())
}

fn inspect_now(database: &Database, start_timeout: Duration) -> Result<State, Error> {
    let mut client = connect_within(database, start_timeout)?;
    let mut ask = |sql: &Sql| {
        let rows = client.query_typed(sql.text, &[]);
        rows.map_err(|error| classify(sql, &error))
    };
    let rows = ask(&DESCRIBE)?;
    let row = rows.first();
    let row = row.ok_or_else(|| DESCRIBE.fault("it answered without a row"))?;
    let has_history: bool = row
        .try_get("has_history")
        .map_err(|error| DESCRIBE.fault(error))?;
    let applied = if has_history {
        let names = ask(&LIST_MIGRATIONS)?
            .iter()
            .map(|row| row.try_get("name"))
            .collect::<Result<Vec<String>, _>>();
        names.map_err(|error| LIST_MIGRATIONS.fault(error))?
    } else {
        Vec::new()
    };
    let runner = migrations::migrations::runner();
    let known: Vec<_> = runner
        .get_migrations()
        .iter()
        .map(ToString::to_string)
        .collect();
    let beyond = |these: &[String], those: &[String]| -> Vec<String> {
        let missing = these.iter().filter(|name| !those.contains(name));
        missing.cloned().collect()
    };
    let read = || -> Result<_, postgres::Error> {
        Ok(State {
            version: row.try_get("version")?,
            version_number: row.try_get("version_number")?,
            encoding: row.try_get("encoding")?,
            locale: row.try_get("locale")?,
            knows_letters: row.try_get("knows_letters")?,
            is_writable: row.try_get("is_writable")?,
            extensions: BTreeMap::from([
                ("pg_trgm".to_owned(), row.try_get("has_pg_trgm")?),
                ("btree_gin".to_owned(), row.try_get("has_btree_gin")?),
            ]),
            pending: beyond(&known, &applied),
            unknown: beyond(&applied, &known),
            applied,
        })
    };
    read().map_err(|error| DESCRIBE.fault(error))
}

/// A connection, however often it has to be tried for until then.
pub fn connect_within(database: &Database, start_deadline: Duration) -> Result<Client, Error> {
    let deadline = Instant::now() + start_deadline;
    loop {
        match database.connect("") {
            Ok(session) => return Ok(session.client),
            // A server that is starting, or not there yet, may come; a refusal of this user will stay.
            Err(error) if Instant::now() < deadline && !error.is_refusal => {
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(error) => return Err(Error::Unavailable(error.to_string())),
        }
    }
}
