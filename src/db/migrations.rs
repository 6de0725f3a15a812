//! Applies the migrations of `sql/migrations` ([`migrate`]), and compares the history that a database keeps of them with
//! the ones that this program contains ([`History`]).
use std::collections::HashMap;
use std::error::Error as _;
use std::time::Duration;

use postgres::Client;
use refinery::{Migration, Runner};
use serde::Serialize;

use super::error::{classify, describe};
use super::schema::{begin, connect_within, read_state, with_client};
use super::{ConnectionConfig, Error, Kind, Sql, sql};

mod embedded {
    refinery::embed_migrations!("sql/migrations");
}

const LOCK_MIGRATIONS: Sql = sql!("schema/lock_migrations", []);
const CREATE_SEARCH_INDEX: Sql = sql!("schema/create_search_index", []);
const ADOPT_EARLIER_SCHEMA: Sql = sql!("schema/adopt_earlier_schema", []);
const REPLACE_MIGRATION_HISTORY: Sql = sql!("schema/replace_migration_history", [TEXT, TEXT]);

/// Limits all pending migrations together: one that builds an index reads every movie.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Begins the line of V1__initial_schema.sql after which everything is created again for an adopted schema.
const ADOPTED_PART: &str = "-- The part that is run again";

/// The migrations, with their checksums, that V1__initial_schema replaced. No release contains them; commit
/// [`LAST_EARLIER_COMMIT`] is the last that does.
const EARLIER_MIGRATIONS: [(&str, &str); 8] = [
    ("V1__users_and_movies", "1135358321560173036"),
    ("V2__kept_counts", "3109046044556680663"),
    ("V3__blank_addresses", "1056482956635496701"),
    ("V4__searches_of_long_shelves", "11150504882602983707"),
    ("V5__parts_of_long_shelves", "6023267009151337711"),
    ("V6__pages_of_searches", "1360539863756439673"),
    ("V7__data_only_loads", "10238690045092338921"),
    ("V8__vacuum_and_pending_list", "16316943782683263706"),
];

pub(super) const LAST_EARLIER_COMMIT: &str = "8baf01a";

/// Applies the migrations that the database lacks and returns their names. Creates the search index if it is missing.
///
/// Several instances may start at once, and the migration library takes no lock. So a transaction on a connection of its
/// own holds an advisory lock meanwhile; a lock of a transaction also works through a pooler of connections.
///
/// # Errors
/// [`Error::Schema`] if the database has [`SchemaState::problems`](super::SchemaState::problems) or a migration fails;
/// another error if the database cannot be reached within `start_timeout`, or the migrations take longer than an hour.
pub fn migrate(database: &ConnectionConfig, start_timeout: Duration) -> Result<Vec<String>, Error> {
    let lock_database = database.clone();
    let migrate = move |client: &mut Client| {
        let mut lock_client = connect_within(&lock_database, start_timeout)?;
        let _lock = begin(&mut lock_client, &LOCK_MIGRATIONS)?;
        apply_migrations(client)
    };
    with_client(database, start_timeout, TIMEOUT, Kind::Write, migrate)
}

fn apply_migrations(client: &mut Client) -> Result<Vec<String>, Error> {
    let state = read_state(client)?;
    let problems = state.problems();
    if !problems.is_empty() {
        return Err(Error::Schema(problems.join("; ")));
    }
    let applied = apply_pending(client, &state.history)?;
    if !state.has_search_index
        && let Err(error) = client.batch_execute(CREATE_SEARCH_INDEX.text)
    {
        let reason = describe(&error);
        log::warn!(
            "searches run without an index: {reason} (see sql/schema/create_search_index.sql)"
        );
    }
    if let Some(note) = state.letters_note() {
        log::warn!("{note}");
    }
    Ok(applied)
}

/// Does not call the migration library if nothing is pending: it would create its table, for which PostgreSQL requires
/// CREATE on the schema even if the table exists.
fn apply_pending(client: &mut Client, history: &History) -> Result<Vec<String>, Error> {
    let mut pending = history.pending.as_slice();
    let mut applied = Vec::new();
    if history.earlier_schema == EarlierSchema::Complete {
        applied.push(adopt_earlier_schema(client)?);
        pending = pending.get(1..).unwrap_or_default();
    }
    let mut known = embedded::migrations::runner().get_migrations().clone();
    known.sort();
    for (index, migration) in known.iter().enumerate() {
        let name = migration.to_string();
        if !pending.contains(&name) {
            continue;
        }
        // Grouped: the migration and its row in the history are committed together.
        let runner = Runner::new(known.get(..=index).unwrap_or_default()).set_grouped(true);
        let run = runner.run(client);
        run.map_err(|error| describe_failure(&error, &name))?;
        applied.push(name);
    }
    for migration in &applied {
        log::info!("migration {migration} applied");
    }
    Ok(applied)
}

/// Turns the schema of [`EARLIER_MIGRATIONS`] into that of the first migration, in one transaction, and returns the name
/// of that migration. Tables are renamed, functions and triggers are replaced; no row changes.
fn adopt_earlier_schema(client: &mut Client) -> Result<String, Error> {
    let runner = embedded::migrations::runner();
    let initial = runner.get_migrations().iter().min();
    let (initial, replacements) = initial
        .and_then(|initial| Some((initial, find_adopted_part(initial.sql()?)?)))
        .ok_or_else(|| {
            ADOPT_EARLIER_SCHEMA.fault("the first migration has no part to run again")
        })?;

    let mut transaction = begin(client, &ADOPT_EARLIER_SCHEMA)?;
    let replaced = transaction.batch_execute(replacements);
    replaced.map_err(|error| classify(&ADOPT_EARLIER_SCHEMA, &error))?;
    let (name, checksum) = (initial.name(), initial.checksum().to_string());
    let recorded = transaction.execute(REPLACE_MIGRATION_HISTORY.text, &[&name, &checksum]);
    recorded.map_err(|error| classify(&REPLACE_MIGRATION_HISTORY, &error))?;
    let committed = transaction.commit();
    committed.map_err(|error| classify(&ADOPT_EARLIER_SCHEMA, &error))?;
    Ok(initial.to_string())
}

fn find_adopted_part(text: &str) -> Option<&str> {
    text.get(text.find(ADOPTED_PART)?..)
}

/// Returns the server's own message and SQLSTATE, which the library's text leaves out, with the name of the migration.
fn describe_failure(error: &refinery::Error, name: &str) -> Error {
    let source = error.source();
    match source.and_then(|source| source.downcast_ref::<postgres::Error>()) {
        Some(error) if error.as_db_error().is_none() => {
            Error::Unavailable(format!("migration {name}: {}", describe(error)))
        }
        Some(error) => Error::Schema(format!("migration {name} failed: {}", describe(error))),
        None => Error::Schema(format!("migration {name} failed: {error}")),
    }
}

/// A row of refinery_schema_history.
pub(super) struct AppliedMigration {
    pub(super) name: String,
    pub(super) version: i32,
    pub(super) checksum: String,
}

/// Whether [`EARLIER_MIGRATIONS`] made a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum EarlierSchema {
    /// None of them did.
    #[default]
    None,
    /// Some of them did: [`migrate`] refuses it.
    Incomplete,
    /// All of them did: [`migrate`] adopts it.
    Complete,
}

/// A database's history of migrations, compared with the migrations that this program contains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct History {
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
    /// Whether the migrations before V1__initial_schema made the schema.
    #[serde(skip)]
    pub(super) earlier_schema: EarlierSchema,
}

impl History {
    /// Compares the rows of refinery_schema_history, in their order, with the program's migrations.
    pub(super) fn compare(applied: &[AppliedMigration]) -> History {
        History::compare_with(embedded::migrations::runner().get_migrations(), applied)
    }

    fn compare_with(known: &[Migration], applied: &[AppliedMigration]) -> History {
        let names = || known.iter().map(Migration::to_string);
        let checksums = known.iter().map(Migration::checksum);
        let checksums = checksums.map(|checksum| checksum.to_string());
        let earlier = EARLIER_MIGRATIONS.map(|(name, sum)| (name.to_owned(), sum.to_owned()));
        let checksums: HashMap<_, _> = names().zip(checksums).chain(earlier).collect();
        let mut history = History::default();
        for AppliedMigration { name, checksum, .. } in applied {
            match checksums.get(name) {
                None => history.unknown.push(name.clone()),
                Some(known) if known != checksum => history.changed.push(name.clone()),
                Some(_) => {}
            }
            history.applied.push(name.clone());
        }
        let is_earlier = |name: &String| {
            EARLIER_MIGRATIONS
                .iter()
                .any(|(earlier, _)| earlier == name)
        };
        if history.applied.iter().any(is_earlier) {
            let is_complete = history.applied.len() == EARLIER_MIGRATIONS.len()
                && history.applied.iter().all(is_earlier);
            if is_complete && history.changed.is_empty() {
                history.earlier_schema = EarlierSchema::Complete;
                history.pending = names().collect();
            } else {
                history.earlier_schema = EarlierSchema::Incomplete;
            }
            return history;
        }
        let latest = applied.iter().map(|migration| migration.version).max();
        for (name, migration) in names().zip(known) {
            if history.applied.contains(&name) {
                continue;
            }
            if latest.is_some_and(|latest| migration.version() < latest) {
                history.skipped.push(name.clone());
            }
            history.pending.push(name);
        }
        history
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> Vec<Migration> {
        let unapplied = |name: &&str| Migration::unapplied(name, "select 1").unwrap();
        names.iter().map(unapplied).collect()
    }

    fn applied(migrations: &[Migration]) -> Vec<AppliedMigration> {
        let applied = migrations.iter().map(|migration| AppliedMigration {
            name: migration.to_string(),
            version: migration.version(),
            checksum: migration.checksum().to_string(),
        });
        applied.collect()
    }

    fn applied_earlier() -> Vec<AppliedMigration> {
        let applied = EARLIER_MIGRATIONS
            .iter()
            .zip(1..)
            .map(|((name, checksum), version)| AppliedMigration {
                name: (*name).to_owned(),
                version,
                checksum: (*checksum).to_owned(),
            });
        applied.collect()
    }

    #[test]
    fn complete_history_has_nothing_pending() {
        let known = known(&["V1__a", "V2__b"]);
        let history = History::compare_with(&known, &applied(&known));
        assert_eq!(history.applied, ["V1__a", "V2__b"]);
        assert!(
            history.pending.is_empty() && history.unknown.is_empty() && history.changed.is_empty()
        );
        assert_eq!(history.earlier_schema, EarlierSchema::None);
    }

    #[test]
    fn migration_before_an_applied_one_is_skipped() {
        let known = known(&["V1__a", "V2__b", "V3__c"]);
        let mut applied = applied(&known);
        applied.remove(1);
        let history = History::compare_with(&known, &applied);
        assert_eq!(
            (history.pending, history.skipped),
            (vec!["V2__b".to_owned()], vec!["V2__b".to_owned()])
        );
    }

    #[test]
    fn applied_migration_with_another_checksum_is_changed() {
        let known = known(&["V1__a"]);
        let mut applied = applied(&known);
        applied[0].checksum = "1".to_owned();
        assert_eq!(History::compare_with(&known, &applied).changed, ["V1__a"]);
    }

    #[test]
    fn initial_schema_is_pending_after_all_earlier_migrations() {
        let history = History::compare(&applied_earlier());
        assert_eq!(history.earlier_schema, EarlierSchema::Complete);
        assert_eq!(history.pending[0], "V1__initial_schema");
        assert!(
            history.unknown.is_empty() && history.changed.is_empty() && history.skipped.is_empty()
        );
    }

    #[test]
    fn incomplete_or_changed_earlier_migrations_are_not_adopted() {
        let mut incomplete = applied_earlier();
        incomplete.pop();
        let history = History::compare(&incomplete);
        assert_eq!(
            (history.earlier_schema, history.pending.len()),
            (EarlierSchema::Incomplete, 0)
        );
        let mut changed = applied_earlier();
        changed[6].checksum = "1".to_owned();
        let history = History::compare(&changed);
        assert_eq!(history.earlier_schema, EarlierSchema::Incomplete);
        assert_eq!(history.changed, ["V7__data_only_loads"]);
    }

    #[test]
    fn initial_schema_has_one_part_to_run_again() {
        let runner = embedded::migrations::runner();
        let initial = runner.get_migrations().iter().min().unwrap();
        let text = initial.sql().unwrap();
        assert_eq!(text.matches(ADOPTED_PART).count(), 1);
        let adopted_part = find_adopted_part(text).unwrap();
        assert!(adopted_part.contains("create function") && !adopted_part.contains("create table"));
    }
}
