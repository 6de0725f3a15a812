//! Inspects a database ([`inspect`]) and says what keeps the service from running on it ([`SchemaState::problems`]).
//!
//! `check` and `serve` both decide by [`SchemaState`], so they agree.
use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, Transaction};
use serde::Serialize;

use super::error::classify;
use super::migrations::{AppliedMigration, EarlierSchema, History, LAST_EARLIER_COMMIT};
use super::{ConnectionConfig, Error, Kind, Sql, sql};

const DESCRIBE: Sql = sql!("schema/describe", []);
const DESCRIBE_LETTERS: Sql = sql!("schema/describe_letters", []);
const LIST_MIGRATIONS: Sql = sql!("schema/list_migrations", []);

/// The oldest PostgreSQL that the service runs on, as `server_version_num`.
const MIN_POSTGRESQL_VERSION: i32 = 130_000;

/// Limits [`inspect`]'s statements together, which take milliseconds.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Limits all pending migrations together: one that builds an index reads every movie.
pub(super) const MIGRATE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The state of a database: its server, its tables and migrations, and what the role of this connection may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SchemaState {
    /// PostgreSQL's version, such as 15.4.
    pub version: String,
    /// The version as a number, such as 150004.
    pub version_number: i32,
    /// The encoding of stored text. The service needs UTF8.
    pub encoding: String,
    /// The locale, which decides which letters upper() and lower() know.
    pub locale: String,
    /// Whether upper() knows letters beyond ASCII.
    pub knows_letters: bool,
    /// Whether the server accepts writes.
    pub is_writable: bool,
    /// The extensions that the search index needs, and whether each is installed.
    pub extensions: BTreeMap<String, bool>,
    /// Whether the search index exists.
    pub has_search_index: bool,
    /// The role of the connection.
    pub role: String,
    /// The first existing schema of search_path, in which tables are created.
    pub schema: Option<String>,
    /// Whether the role may create tables in that schema.
    pub may_create: bool,
    /// Tables of the service that belong to another role.
    pub foreign_tables: Vec<String>,
    /// Tables, columns and functions that the statements use and that do not exist, such as "column users.email".
    pub missing_objects: Vec<String>,
    /// Privileges that the role lacks, such as "insert on movies".
    pub missing_privileges: Vec<String>,
    /// Migrations that were applied.
    pub applied: Vec<String>,
    /// Migrations that `migrate`, or the next start, applies.
    pub pending: Vec<String>,
    /// Applied migrations that this program does not contain: those of a later version.
    pub unknown: Vec<String>,
    /// Applied migrations whose checksum in refinery_schema_history differs from the program's.
    pub changed: Vec<String>,
    /// Pending migrations that precede an applied one.
    pub skipped: Vec<String>,
    /// Tables with the names of the service's tables that no migration made.
    pub other_tables: Vec<String>,
    /// Whether the migrations before V1__initial_schema made the schema.
    #[serde(skip)]
    pub(super) earlier_schema: EarlierSchema,
}

impl SchemaState {
    /// What prevents the service from starting or from keeping its API, each as one sentence.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.version_number < MIN_POSTGRESQL_VERSION {
            let version = &self.version;
            problems.push(format!("PostgreSQL {version} is older than 13"));
        }
        if !self.is_writable {
            problems.push("the server does not accept writes".to_owned());
        }
        problems.extend(self.schema_problems());
        if !self.missing_privileges.is_empty() {
            let (role, missing) = (&self.role, self.missing_privileges.join(", "));
            problems.push(format!(
                "the role {role} lacks privileges: {missing} (grant them, or connect as the tables' owner)"
            ));
        }
        problems.extend(self.migration_obstacles());
        problems
    }

    /// What makes the schema unusable for this version, whatever the role may do.
    pub(super) fn schema_problems(&self) -> Vec<String> {
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
        } else if self.earlier_schema == EarlierSchema::Incomplete {
            let applied = self.applied.join(", ");
            problems.push(format!(
                "the schema is an earlier version's, made by {applied} only: \
                 run `movies-api migrate` as built from commit {LAST_EARLIER_COMMIT} first, then this one's"
            ));
        }
        if !self.skipped.is_empty() {
            let skipped = self.skipped.join(", ");
            problems.push(format!(
                "the schema lacks {skipped}, though a later migration was applied"
            ));
        }
        if problems.is_empty() && self.pending.is_empty() && !self.missing_objects.is_empty() {
            let missing = self.missing_objects.join(", ");
            problems.push(format!(
                "the schema lacks what its migrations created: {missing} (restore a backup, or create it again)"
            ));
        }
        problems
    }

    /// Whether all migrations of this version, and no others, made the schema.
    pub fn is_current(&self) -> bool {
        self.schema_problems().is_empty() && self.pending.is_empty()
    }

    /// What would make the pending migrations fail.
    fn migration_obstacles(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.pending.is_empty() {
            return problems;
        }
        let role = &self.role;
        match &self.schema {
            None => problems.push("no schema of the search_path exists".to_owned()),
            Some(schema) if !self.may_create => problems.push(format!(
                "the role {role} may not create tables in the schema {schema}, and migrations are pending \
                 (run `movies-api migrate` as its owner, or grant create on schema {schema})"
            )),
            Some(_) => {}
        }
        if !self.other_tables.is_empty() {
            let tables = self.other_tables.join(", ");
            problems.push(format!(
                "tables with the names of the service's exist, and no migration made them: {tables}"
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

    /// What the service works without, or does at its next start.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<_> = self.letters_note().into_iter().collect();
        if self.earlier_schema == EarlierSchema::Complete {
            notes.push(
                "the schema is an earlier version's: the next start brings it up to date"
                    .to_owned(),
            );
        }
        // The start that applies pending migrations also creates the index.
        if !self.has_search_index && self.is_current() {
            let missing = self
                .extensions
                .iter()
                .filter(|(_, is_installed)| !**is_installed);
            let missing: Vec<_> = missing.map(|(name, _)| name.as_str()).collect();
            notes.push(if missing.is_empty() {
                "searches run without an index: the next start creates it".to_owned()
            } else {
                let missing = missing.join(", ");
                format!("searches run without an index, which needs {missing}")
            });
        }
        notes
    }

    pub(super) fn letters_note(&self) -> Option<String> {
        let note = "the database's locale knows only ASCII letters: searches are case-sensitive for all others \
                    (create the database with a UTF-8 locale such as C.UTF-8)";
        (!self.knows_letters && self.encoding == "UTF8").then(|| note.to_owned())
    }
}

/// Reads the state of the database and changes nothing.
///
/// # Errors
/// If the database cannot be reached within `start_timeout`, refuses the role, or does not answer in time.
pub fn inspect(database: &ConnectionConfig, start_timeout: Duration) -> Result<SchemaState, Error> {
    let database = database.clone();
    let timeout = start_timeout + INSPECT_TIMEOUT;
    within(timeout, Kind::Read, move || {
        read_state(&mut connect_within(&database, start_timeout)?)
    })
}

/// Fails unless the schema is complete and made by this version. Changes nothing.
///
/// # Errors
/// [`Error::Schema`] if it is not; otherwise those of [`inspect`].
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

pub(super) fn read_state(client: &mut Client) -> Result<SchemaState, Error> {
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
        // Other encodings may lack the letters that the statement contains.
        false
    };
    let has_history: bool = row.try_get("has_history").map_err(fault)?;
    let applied = if has_history {
        let rows = query(&LIST_MIGRATIONS)?;
        let applied = rows
            .iter()
            .map(AppliedMigration::read)
            .collect::<Result<_, _>>();
        applied.map_err(|error| LIST_MIGRATIONS.fault(error))?
    } else {
        Vec::new()
    };
    let history = History::compare(&applied);
    let read = || -> Result<_, postgres::Error> {
        let tables: Vec<String> = row.try_get("tables")?;
        Ok(SchemaState {
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
            missing_objects: row.try_get("missing_objects")?,
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
            earlier_schema: history.earlier_schema,
        })
    };
    read().map_err(fault)
}

/// Runs `work` on a thread of its own and waits for it up to `timeout`: a call of the database client has no deadline. A
/// thread that is still running then is left behind.
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

/// Timeouts that a role or a server sets for requests would end a migration or an import, which have their own.
const UNLIMITED: &str =
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0";

/// Connects, and tries again until `start_timeout` has passed unless the server refuses the role.
pub(super) fn connect_within(
    database: &ConnectionConfig,
    start_timeout: Duration,
) -> Result<Client, Error> {
    let deadline = Instant::now() + start_timeout;
    loop {
        match database.connect(UNLIMITED) {
            Ok(session) => return Ok(session.client),
            Err(error) if Instant::now() < deadline && !error.is_permanent => {
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(error) => return Err(Error::Unavailable(error.to_string())),
        }
    }
}

/// Begins a transaction and runs `setup`, one or several statements, as its first.
pub(super) fn begin<'a>(client: &'a mut Client, setup: &Sql) -> Result<Transaction<'a>, Error> {
    let mut transaction = client
        .transaction()
        .map_err(|error| classify(setup, &error))?;
    transaction
        .batch_execute(setup.text)
        .map_err(|error| classify(setup, &error))?;
    Ok(transaction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable_state() -> SchemaState {
        SchemaState {
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
            missing_objects: Vec::new(),
            missing_privileges: Vec::new(),
            applied: Vec::new(),
            pending: Vec::new(),
            unknown: Vec::new(),
            changed: Vec::new(),
            skipped: Vec::new(),
            other_tables: Vec::new(),
            earlier_schema: EarlierSchema::None,
        }
    }

    #[test]
    fn postgresql_older_than_13_is_a_problem() {
        assert_eq!(usable_state().problems(), Vec::<String>::new());
        let old = SchemaState {
            version: "12.22".to_owned(),
            version_number: 120_022,
            ..usable_state()
        };
        assert_eq!(old.problems(), ["PostgreSQL 12.22 is older than 13"]);
    }

    #[test]
    fn role_without_create_is_a_problem_only_while_migrations_are_pending() {
        let state = SchemaState {
            may_create: false,
            ..usable_state()
        };
        assert_eq!(state.problems(), Vec::<String>::new());
        let state = SchemaState {
            pending: vec!["V9__more".to_owned()],
            ..state
        };
        assert_eq!(state.problems().len(), 1);
    }
}
