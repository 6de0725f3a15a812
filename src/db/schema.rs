//! The database's schema: what a database is and lacks ([`inspect`]), whether that keeps the service from starting
//! ([`State::problems`]), and the migrations that it lacks ([`migrate`]).
//!
//! `check` and the start judge a database by the same [`State`], so that they agree.
use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, Row, Transaction};
use serde::Serialize;

use super::error::{classify, describe};
use super::{ConnectionConfig, Error, Kind, Sql, sql};

mod migrations {
    refinery::embed_migrations!("sql/migrations");
}

const LOCK_MIGRATIONS: Sql = sql!("schema/lock_migrations", []);
const DESCRIBE_LETTERS: Sql = sql!("schema/describe_letters", []);
const DESCRIBE: Sql = sql!("schema/describe", []);
const LIST_MIGRATIONS: Sql = sql!("schema/list_migrations", []);
const CREATE_SEARCH_INDEX: Sql = sql!("schema/create_search_index", []);

/// The oldest PostgreSQL that the service runs on, as `server_version_num`.
const MIN_POSTGRESQL: i32 = 130_000;

/// How long a command waits for the answers of its own statements, which take milliseconds on a server that answers.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long migrations may take: one that builds an index reads every movie.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Applies the migrations that this database lacks, under a lock: the library takes none, and several instances may
/// start at once. The lock is a transaction's, on a connection of its own: so it goes with either, and a pooler between
/// here and the database keeps none behind. Returns the names of those that were applied.
///
/// # Errors
/// [`Error::Schema`] if the database has [`State::problems`], or a migration fails; another if the database does not
/// answer in time or refuses this user.
pub fn migrate(database: &ConnectionConfig, start_timeout: Duration) -> Result<Vec<String>, Error> {
    let database = database.clone();
    within(MIGRATE_TIMEOUT, Kind::Write, move || {
        migrate_now(&database, start_timeout)
    })
}

/// Runs the work in a thread of its own, which is left behind when the time is over: the client has no deadline.
pub(super) fn within<T: Send + 'static>(
    timeout: Duration,
    kind: Kind,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = sync_channel(1);
    let started = thread::Builder::new()
        .name("database".to_owned())
        .spawn(move || _ = sender.send(work()));
    started.map_err(|error| Error::Unavailable(error.to_string()))?;
    receiver.recv_timeout(timeout).unwrap_or_else(|_| {
        let reason = format!("no answer within {} seconds", timeout.as_secs());
        Err(match kind {
            Kind::Read => Error::Unavailable(reason),
            Kind::Write => Error::Unconfirmed(reason),
        })
    })
}

fn migrate_now(database: &ConnectionConfig, start_timeout: Duration) -> Result<Vec<String>, Error> {
    let mut client = connect_within(database, start_timeout)?;
    let mut holder = connect_within(database, start_timeout)?;
    let mut lock = holder
        .transaction()
        .map_err(|error| classify(&LOCK_MIGRATIONS, &error))?;
    lock.batch_execute(LOCK_MIGRATIONS.text)
        .map_err(|error| classify(&LOCK_MIGRATIONS, &error))?;
    let state = read_state(&mut client)?;
    let problems = state.problems();
    if !problems.is_empty() {
        return Err(Error::Schema(problems.join("; ")));
    }
    let applied = apply_pending(&mut client, &state)?;
    if !state.has_search_index
        && let Err(error) = client.batch_execute(CREATE_SEARCH_INDEX.text)
    {
        let reason = describe(&error);
        log::warn!(
            "searches go without an index: {reason} (see sql/schema/create_search_index.sql)"
        );
    }
    if let Some(note) = state.letters_note() {
        log::warn!("{note}");
    }
    Ok(applied)
}

/// The migration library is not run where nothing is pending: it creates its own table if that is not there, for which
/// PostgreSQL asks for CREATE on the schema even if it is.
fn apply_pending(client: &mut Client, state: &State) -> Result<Vec<String>, Error> {
    if state.pending.is_empty() {
        return Ok(Vec::new());
    }
    let report = migrations::migrations::runner().run(client);
    let report = report.map_err(|error| describe_failure(&error, &state.pending))?;
    let applied = report.applied_migrations().iter();
    let applied: Vec<_> = applied.map(ToString::to_string).collect();
    for migration in &applied {
        log::info!("migration {migration} applied");
    }
    Ok(applied)
}

/// The server's own message and SQLSTATE, which the library's text leaves out, and the migration that failed.
fn describe_failure(error: &refinery::Error, pending: &[String]) -> Error {
    let report = error.report();
    let applied = report.map_or(0, |report| report.applied_migrations().len());
    let name = pending.get(applied).map_or("", String::as_str);
    let source = error.source();
    match source.and_then(|source| source.downcast_ref::<postgres::Error>()) {
        Some(error) if error.as_db_error().is_none() => {
            Error::Unavailable(format!("migration {name}: {}", describe(error)))
        }
        Some(error) => Error::Schema(format!("migration {name} failed: {}", describe(error))),
        None => Error::Schema(format!("migration {name} failed: {error}")),
    }
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
    /// Whether the index that they are for is there.
    pub has_search_index: bool,
    /// The role that these settings connect as.
    pub role: String,
    /// The schema of the search_path in which tables are created.
    pub schema: Option<String>,
    /// Whether the role may create tables there.
    pub may_create: bool,
    /// The service's tables that another role owns.
    pub foreign_tables: Vec<String>,
    /// What the role may not do, such as "insert on movies".
    pub missing_privileges: Vec<String>,
    /// Migrations that were applied.
    pub applied: Vec<String>,
    /// Migrations that `migrate`, or the next start, would apply.
    pub pending: Vec<String>,
    /// Applied ones that this program does not know: a later version's.
    pub unknown: Vec<String>,
    /// Applied ones whose text was another, by the checksum in refinery_schema_history.
    pub changed: Vec<String>,
    /// Pending ones that come before one that was applied.
    pub skipped: Vec<String>,
    /// Tables with the names of ours that no migration made.
    pub other_tables: Vec<String>,
}

impl State {
    /// What keeps the service from starting or from keeping its contract, each in one sentence.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.version_number < MIN_POSTGRESQL {
            let version = &self.version;
            problems.push(format!("PostgreSQL {version} is older than 13"));
        }
        if !self.is_writable {
            problems.push("the server takes no writes".to_owned());
        }
        problems.extend(self.schema_problems());
        if !self.missing_privileges.is_empty() {
            let (role, missing) = (&self.role, self.missing_privileges.join(", "));
            problems.push(format!(
                "the role {role} lacks privileges: {missing} (grant them, or connect as the tables' owner)"
            ));
        }
        problems.extend(self.obstacles());
        problems
    }

    /// What makes the schema unusable by this version, whatever the role may do.
    fn schema_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.encoding != "UTF8" {
            let encoding = &self.encoding;
            problems.push(format!(
                "the database keeps text as {encoding}, not UTF8 \
                 (create it with encoding 'UTF8' and template template0)"
            ));
        }
        if !self.unknown.is_empty() {
            let unknown = self.unknown.join(", ");
            problems.push(format!(
                "the schema is a later version's: {unknown} is not known here"
            ));
        }
        if !self.changed.is_empty() {
            let changed = self.changed.join(", ");
            problems.push(format!(
                "the schema was made by another text of {changed}: its checksum in refinery_schema_history differs"
            ));
        }
        if !self.skipped.is_empty() {
            let skipped = self.skipped.join(", ");
            problems.push(format!(
                "the schema lacks {skipped}, though a later migration was applied"
            ));
        }
        problems
    }

    /// What would make pending migrations fail.
    fn obstacles(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.pending.is_empty() {
            return problems;
        }
        let role = &self.role;
        match &self.schema {
            None => problems.push("no schema of the search_path is there".to_owned()),
            Some(schema) if !self.may_create => problems.push(format!(
                "the role {role} may not create tables in the schema {schema}, and migrations are pending \
                 (run `movies-api migrate` as its owner, or grant create on schema {schema})"
            )),
            Some(_) => {}
        }
        if !self.other_tables.is_empty() {
            let tables = self.other_tables.join(", ");
            problems.push(format!(
                "no migration made the table {tables} that is there"
            ));
        }
        if !self.foreign_tables.is_empty() {
            let tables = self.foreign_tables.join(", ");
            problems.push(format!(
                "the role {role} does not own {tables}, and migrations are pending \
                 (run `movies-api migrate` as the owner)"
            ));
        }
        problems
    }

    /// What the service can do without.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<_> = self.letters_note().into_iter().collect();
        // The first migration's start makes the index where it may.
        if !self.has_search_index && self.pending.is_empty() {
            let missing = self.extensions.iter().filter(|(_, is_there)| !**is_there);
            let missing: Vec<_> = missing.map(|(name, _)| name.as_str()).collect();
            notes.push(if missing.is_empty() {
                "searches go without an index: the next start makes it".to_owned()
            } else {
                let missing = missing.join(", ");
                format!("searches go without an index for want of {missing}")
            });
        }
        notes
    }

    fn letters_note(&self) -> Option<String> {
        let note = "the database's locale knows only ASCII letters: searches mind the case of all others \
                    (create the database with a UTF-8 locale such as C.UTF-8)";
        (!self.knows_letters && self.encoding == "UTF8").then(|| note.to_owned())
    }
}

/// Looks at the database and changes nothing.
///
/// # Errors
/// If the database does not answer in time or refuses this user.
pub fn inspect(database: &ConnectionConfig, start_timeout: Duration) -> Result<State, Error> {
    let database = database.clone();
    let timeout = start_timeout + INSPECT_TIMEOUT;
    within(timeout, Kind::Read, move || {
        inspect_now(&database, start_timeout)
    })
}

/// Makes sure that the schema is this version's; changes nothing.
///
/// # Errors
/// [`Error::Schema`] if it is not; as [`inspect`] else.
pub fn check_schema(database: &ConnectionConfig, start_timeout: Duration) -> Result<(), Error> {
    let state = inspect(database, start_timeout)?;
    let problems = state.schema_problems();
    if !problems.is_empty() {
        return Err(Error::Schema(problems.join("; ")));
    }
    if !state.pending.is_empty() {
        let pending = state.pending.join(", ");
        return Err(Error::Schema(format!(
            "the schema lacks {pending}: run `movies-api migrate`, or start the service"
        )));
    }
    Ok(())
}

fn inspect_now(database: &ConnectionConfig, start_timeout: Duration) -> Result<State, Error> {
    read_state(&mut connect_within(database, start_timeout)?)
}

fn read_state(client: &mut Client) -> Result<State, Error> {
    let mut query = |sql: &Sql| {
        let rows = client.query_typed(sql.text, &[]);
        rows.map_err(|error| classify(sql, &error))
    };
    let rows = query(&DESCRIBE)?;
    let row = rows.first();
    let row = row.ok_or_else(|| DESCRIBE.fault("it returned no row"))?;
    let fault = |error| DESCRIBE.fault(error);
    let encoding: String = row.try_get("encoding").map_err(fault)?;
    let knows_letters = if encoding == "UTF8" {
        let rows = query(&DESCRIBE_LETTERS)?;
        matches!(rows.first().map(|row| row.try_get(0)), Some(Ok(true)))
    } else {
        // The statement cannot be sent in the encodings that lack its letters.
        false
    };
    let has_history: bool = row.try_get("has_history").map_err(fault)?;
    let history = if has_history {
        let rows = query(&LIST_MIGRATIONS)?;
        let history = rows.iter().map(Applied::read).collect::<Result<_, _>>();
        history.map_err(|error| LIST_MIGRATIONS.fault(error))?
    } else {
        Vec::new()
    };
    let history = compare(&history);
    let read = || -> Result<_, postgres::Error> {
        let tables: Vec<String> = row.try_get("tables")?;
        Ok(State {
            version: row.try_get("version")?,
            version_number: row.try_get("version_number")?,
            encoding,
            locale: row.try_get("locale")?,
            knows_letters,
            is_writable: row.try_get("is_writable")?,
            extensions: BTreeMap::from([
                ("pg_trgm".to_owned(), row.try_get("has_pg_trgm")?),
                ("btree_gin".to_owned(), row.try_get("has_btree_gin")?),
            ]),
            has_search_index: row.try_get("has_search_index")?,
            role: row.try_get("role")?,
            schema: row.try_get("schema")?,
            may_create: row.try_get("may_create")?,
            foreign_tables: row.try_get("foreign_tables")?,
            missing_privileges: row.try_get("missing_privileges")?,
            other_tables: if history.applied.is_empty() {
                tables
            } else {
                Vec::new()
            },
            applied: history.applied,
            pending: history.pending,
            unknown: history.unknown,
            changed: history.changed,
            skipped: history.skipped,
        })
    };
    read().map_err(fault)
}

/// A row of refinery_schema_history.
struct Applied {
    name: String,
    version: i32,
    checksum: String,
}

impl Applied {
    fn read(row: &Row) -> Result<Applied, postgres::Error> {
        Ok(Applied {
            name: row.try_get("name")?,
            version: row.try_get("version")?,
            checksum: row.try_get("checksum")?,
        })
    }
}

/// The history beside the migrations that this program knows; the fields are those of [`State`].
struct History {
    applied: Vec<String>,
    pending: Vec<String>,
    unknown: Vec<String>,
    changed: Vec<String>,
    skipped: Vec<String>,
}

fn compare(history: &[Applied]) -> History {
    let runner = migrations::migrations::runner();
    let known = runner.get_migrations();
    let names: Vec<_> = known.iter().map(ToString::to_string).collect();
    let latest = history.iter().map(|applied| applied.version).max();
    let is_applied = |name: &str| history.iter().any(|applied| applied.name == name);
    let (mut pending, mut skipped) = (Vec::new(), Vec::new());
    for (migration, name) in known.iter().zip(&names) {
        if is_applied(name) {
            continue;
        }
        pending.push(name.clone());
        if latest.is_some_and(|latest| i64::from(migration.version()) < i64::from(latest)) {
            skipped.push(name.clone());
        }
    }
    let is_changed = |applied: &&Applied| {
        let mut known = known.iter().zip(&names);
        known.any(|(migration, name)| {
            *name == applied.name && migration.checksum().to_string() != applied.checksum
        })
    };
    let names_of = |applied: &mut dyn Iterator<Item = &Applied>| -> Vec<String> {
        applied.map(|applied| applied.name.clone()).collect()
    };
    History {
        applied: names_of(&mut history.iter()),
        pending,
        unknown: names_of(
            &mut history
                .iter()
                .filter(|applied| !names.contains(&applied.name)),
        ),
        changed: names_of(&mut history.iter().filter(is_changed)),
        skipped,
    }
}

/// Limits that a role or a server has for requests would cut a migration or an import, which have limits of their own.
const UNLIMITED: &str =
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0";

/// A connection, however often it has to be tried for until then.
pub fn connect_within(
    database: &ConnectionConfig,
    start_deadline: Duration,
) -> Result<Client, Error> {
    let deadline = Instant::now() + start_deadline;
    loop {
        match database.connect(UNLIMITED) {
            Ok(session) => return Ok(session.client),
            // A server that is starting, or not there yet, may come; a refusal of this user will stay.
            Err(error) if Instant::now() < deadline && !error.is_permanent => {
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(error) => return Err(Error::Unavailable(error.to_string())),
        }
    }
}

/// A transaction that begins with these settings.
pub(super) fn begin<'a>(client: &'a mut Client, settings: &Sql) -> Result<Transaction<'a>, Error> {
    let mut transaction = client
        .transaction()
        .map_err(|error| classify(settings, &error))?;
    transaction
        .batch_execute(settings.text)
        .map_err(|error| classify(settings, &error))?;
    Ok(transaction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable_state() -> State {
        State {
            version: "15.4".to_owned(),
            version_number: 150_004,
            encoding: "UTF8".to_owned(),
            locale: "C.UTF-8".to_owned(),
            knows_letters: true,
            is_writable: true,
            extensions: BTreeMap::new(),
            has_search_index: true,
            role: "movies".to_owned(),
            schema: Some("public".to_owned()),
            may_create: true,
            foreign_tables: Vec::new(),
            missing_privileges: Vec::new(),
            applied: Vec::new(),
            pending: Vec::new(),
            unknown: Vec::new(),
            changed: Vec::new(),
            skipped: Vec::new(),
            other_tables: Vec::new(),
        }
    }

    #[test]
    fn postgresql_older_than_13_is_a_problem() {
        assert_eq!(usable_state().problems(), Vec::<String>::new());
        let old = State {
            version: "12.22".to_owned(),
            version_number: 120_022,
            ..usable_state()
        };
        assert_eq!(old.problems(), ["PostgreSQL 12.22 is older than 13"]);
    }

    #[test]
    fn a_role_without_create_is_a_problem_only_while_migrations_are_pending() {
        let state = State {
            may_create: false,
            ..usable_state()
        };
        assert_eq!(state.problems(), Vec::<String>::new());
        let state = State {
            pending: vec!["V9__more".to_owned()],
            ..state
        };
        assert_eq!(state.problems().len(), 1);
    }

    #[test]
    fn a_migration_before_an_applied_one_is_skipped() {
        let runner = migrations::migrations::runner();
        let mut history: Vec<_> = runner
            .get_migrations()
            .iter()
            .map(|migration| Applied {
                name: migration.to_string(),
                version: migration.version(),
                checksum: migration.checksum().to_string(),
            })
            .collect();
        history.sort_by_key(|applied| applied.version);
        let full = compare(&history);
        assert_eq!(
            (full.pending.len(), full.changed.len(), full.unknown.len()),
            (0, 0, 0)
        );
        let removed = history.remove(1);
        let compared = compare(&history);
        assert_eq!(
            (compared.pending, compared.skipped),
            (vec![removed.name.clone()], vec![removed.name])
        );
    }
}
