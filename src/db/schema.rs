//! Inspects a database ([`inspect`]) and says what keeps the service from running on it ([`SchemaState::problems`]).
//!
//! `check` and `serve` both decide by [`SchemaState`], so they agree.
use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, GenericClient, Row, Transaction};
use serde::Serialize;

use super::error::classify;
use super::migrations::{AppliedMigration, EarlierSchema, History, LAST_EARLIER_COMMIT};
use super::{ConnectionConfig, Error, Kind, Sql, decode, first_row, get, sql};

const DESCRIBE: Sql = sql!("schema/describe", []);
const DESCRIBE_LETTERS: Sql = sql!("schema/describe_letters", []);
const LIST_MIGRATIONS: Sql = sql!("schema/list_migrations", []);

/// The oldest PostgreSQL that the service runs on, as `server_version_num`.
const MIN_POSTGRESQL_VERSION: i32 = 130_000;

/// Limits [`inspect`]'s statements together, which take milliseconds.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(30);

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
    /// The migrations of the database, compared with the program's.
    #[serde(flatten)]
    pub history: History,
    /// Tables with the names of the service's tables that no migration made.
    pub other_tables: Vec<String>,
}

/// Returns the names in one text, or `None` if there are none.
fn list(names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| names.join(", "))
}

impl SchemaState {
    /// What prevents the service from starting or from keeping its API, each as one sentence.
    pub fn problems(&self) -> Vec<String> {
        let (version, role) = (&self.version, &self.role);
        let of_server = [
            (self.version_number < MIN_POSTGRESQL_VERSION)
                .then(|| format!("PostgreSQL {version} is older than 13")),
            (!self.is_writable).then(|| "the server does not accept writes".to_owned()),
        ];
        let of_privileges = list(&self.missing_privileges).map(|missing| {
            format!(
                "the role {role} lacks privileges: {missing} (grant them, or connect as the tables' owner)"
            )
        });
        let mut problems: Vec<_> = of_server.into_iter().flatten().collect();
        problems.extend(self.schema_problems());
        problems.extend(of_privileges);
        problems.extend(self.migration_obstacles());
        problems
    }

    /// What makes the schema unusable for this version, whatever the role may do.
    pub(super) fn schema_problems(&self) -> Vec<String> {
        let (encoding, history) = (&self.encoding, &self.history);
        let is_incomplete =
            history.changed.is_empty() && history.earlier_schema == EarlierSchema::Incomplete;
        let applied = history.applied.join(", ");
        let problems = [
            (encoding != "UTF8").then(|| format!(
                "the database keeps text as {encoding}, not UTF8 \
                 (create it with encoding 'UTF8' and template template0)"
            )),
            list(&history.unknown).map(|unknown| format!(
                "the schema is a later version's: {unknown} is not known here"
            )),
            list(&history.changed).map(|changed| format!(
                "the schema was made by another text of {changed}: its checksum in refinery_schema_history differs"
            )),
            is_incomplete.then(|| format!(
                "the schema is an earlier version's, made by {applied} only: \
                 run `movies-api migrate` as built from commit {LAST_EARLIER_COMMIT} first, then this one's"
            )),
            list(&history.skipped).map(|skipped| format!(
                "the schema lacks {skipped}, though a later migration was applied"
            )),
        ];
        let mut problems: Vec<_> = problems.into_iter().flatten().collect();
        if problems.is_empty()
            && history.pending.is_empty()
            && let Some(missing) = list(&self.missing_objects)
        {
            problems.push(format!(
                "the schema lacks what its migrations created: {missing} (restore a backup, or create it again)"
            ));
        }
        problems
    }

    /// Whether all migrations of this version, and no others, made the schema.
    pub fn is_current(&self) -> bool {
        self.schema_problems().is_empty() && self.history.pending.is_empty()
    }

    /// What would make the pending migrations fail.
    fn migration_obstacles(&self) -> Vec<String> {
        if self.history.pending.is_empty() {
            return Vec::new();
        }
        let role = &self.role;
        let problems = [
            match &self.schema {
                None => Some("no schema of the search_path exists".to_owned()),
                Some(schema) => (!self.may_create).then(|| format!(
                    "the role {role} may not create tables in the schema {schema}, and migrations are pending \
                     (run `movies-api migrate` as its owner, or grant create on schema {schema})"
                )),
            },
            list(&self.other_tables).map(|tables| format!(
                "tables with the names of the service's exist, and no migration made them: {tables}"
            )),
            list(&self.foreign_tables).map(|tables| format!(
                "the role {role} does not own {tables}, and migrations are pending \
                 (run `movies-api migrate` as the owner)"
            )),
        ];
        problems.into_iter().flatten().collect()
    }

    /// What the service works without, or does at its next start.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<_> = self.letters_note().into_iter().collect();
        if self.history.earlier_schema == EarlierSchema::Complete {
            notes.push(
                "the schema is an earlier version's: the next start brings it up to date"
                    .to_owned(),
            );
        }
        // The start that applies pending migrations also creates the index.
        if !self.has_search_index && self.is_current() {
            let missing = self.extensions.iter().filter(|extension| !extension.1);
            let missing: Vec<_> = missing.map(|(name, _)| name.clone()).collect();
            notes.push(match list(&missing) {
                None => "searches run without an index: the next start creates it".to_owned(),
                Some(missing) => format!("searches run without an index, which needs {missing}"),
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
    let timeout = start_timeout + INSPECT_TIMEOUT;
    with_client(database, start_timeout, timeout, Kind::Read, read_state)
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
    match list(&state.history.pending) {
        None => Ok(()),
        Some(pending) => Err(Error::Schema(format!(
            "the schema lacks {pending}: run `movies-api migrate`, or start the service"
        ))),
    }
}

pub(super) fn read_state(client: &mut Client) -> Result<SchemaState, Error> {
    let rows = query(client, &DESCRIBE)?;
    let row = first_row(&rows, &DESCRIBE)?;
    let encoding: String = get(row, "encoding", &DESCRIBE)?;
    // Other encodings may lack the letters that the statement contains.
    let knows_letters = encoding == "UTF8" && {
        let rows = query(client, &DESCRIBE_LETTERS)?;
        matches!(rows.first().map(|row| row.try_get(0)), Some(Ok(true)))
    };
    let applied = match get(row, "has_history", &DESCRIBE)? {
        true => query(client, &LIST_MIGRATIONS)?,
        false => Vec::new(),
    };
    let applied = applied.iter().map(|row| {
        Ok(decode!(row, &LIST_MIGRATIONS => AppliedMigration { name, version, checksum }))
    });
    let history = History::compare(&applied.collect::<Result<Vec<_>, Error>>()?);
    let mut other_tables: Vec<String> = get(row, "tables", &DESCRIBE)?;
    if !history.applied.is_empty() {
        other_tables.clear();
    }
    Ok(SchemaState {
        version: get(row, "version", &DESCRIBE)?,
        version_number: get(row, "version_number", &DESCRIBE)?,
        encoding,
        locale: get(row, "locale", &DESCRIBE)?,
        knows_letters,
        is_writable: get(row, "is_writable", &DESCRIBE)?,
        extensions: BTreeMap::from([
            ("pg_trgm".to_owned(), get(row, "has_pg_trgm", &DESCRIBE)?),
            (
                "btree_gin".to_owned(),
                get(row, "has_btree_gin", &DESCRIBE)?,
            ),
        ]),
        has_search_index: get(row, "has_search_index", &DESCRIBE)?,
        role: get(row, "role", &DESCRIBE)?,
        schema: get(row, "schema", &DESCRIBE)?,
        may_create: get(row, "may_create", &DESCRIBE)?,
        foreign_tables: get(row, "foreign_tables", &DESCRIBE)?,
        missing_objects: get(row, "missing_objects", &DESCRIBE)?,
        missing_privileges: get(row, "missing_privileges", &DESCRIBE)?,
        history,
        other_tables,
    })
}

pub(super) fn query(client: &mut impl GenericClient, sql: &Sql) -> Result<Vec<Row>, Error> {
    let rows = client.query_typed(sql.text, &[]);
    rows.map_err(|error| classify(sql, &error))
}

/// Runs `work` with a client of its own, on a thread of its own, and waits for it up to `timeout`: a call of the database
/// client has no deadline. A thread that is still running then is left behind.
pub(super) fn with_client<T: Send + 'static>(
    database: &ConnectionConfig,
    start_timeout: Duration,
    timeout: Duration,
    kind: Kind,
    work: impl FnOnce(&mut Client) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let database = database.clone();
    let (sender, receiver) = sync_channel(1);
    let started = thread::Builder::new()
        .name("database".to_owned())
        .spawn(move || {
            let client = connect_within(&database, start_timeout);
            _ = sender.send(client.and_then(|mut client| work(&mut client)));
        });
    started.map_err(|error| Error::Unavailable(error.to_string()))?;
    receiver.recv_timeout(timeout).unwrap_or_else(|_| {
        let reason = format!("no answer within {} seconds", timeout.as_secs());
        Err(kind.no_response(reason))
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
    let connector = database.connector(UNLIMITED);
    loop {
        match connector.connect() {
            Ok(session) => return Ok(session.client),
            Err(error) if Instant::now() < deadline && !error.is_permanent => {
                thread::sleep(Duration::from_millis(200));
            }
            Err(error) => return Err(Error::Unavailable(error.to_string())),
        }
    }
}

/// Begins a transaction and runs `setup`, one or several statements, as its first.
pub(super) fn begin<'a>(client: &'a mut Client, setup: &Sql) -> Result<Transaction<'a>, Error> {
    let transaction = client.transaction().and_then(|mut transaction| {
        transaction.batch_execute(setup.text)?;
        Ok(transaction)
    });
    transaction.map_err(|error| classify(setup, &error))
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
            history: History::default(),
            other_tables: Vec::new(),
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
            history: History {
                pending: vec!["V9__more".to_owned()],
                ..History::default()
            },
            ..state
        };
        assert_eq!(state.problems().len(), 1);
    }
}
