//! Imports the users and movies of a Django application, all or nothing. Validates every row first, then copies the rows
//! unchanged, including ids, dates and password hashes.
//!
//! The source is a PostgreSQL database, or a dump that is first loaded into temporary tables of the target's database
//! (`dump`, read by `dump_reader`). From there on both are a transaction in which the application's tables can be read.
mod dump;
mod dump_reader;

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::time::Duration;

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::Type;
use postgres::{Client, Row, Transaction};
use serde::Serialize;

use self::dump::Loaded;
use super::connect::ConnectionConfig;
use super::error::{Error, classify};
use super::get;
use super::schema::{begin, check_schema, connect_within};
use super::{Sql, sql};

const BEGIN_READING: Sql = sql!("import/begin_reading", []);
const BEGIN_WRITING: Sql = sql!("import/begin_writing", []);
const LIST_COLUMNS: Sql = sql!("import/list_columns", []);
const FIND_INVALID_ROWS: Sql = sql!("import/find_invalid_rows", []);
const LIST_PASSWORDS: Sql = sql!("import/list_passwords", []);
const DESCRIBE_SOURCE: Sql = sql!("import/describe_source", []);
const COUNT_ROWS: Sql = sql!("import/count_rows", []);
const COPY_USERS_OUT: Sql = sql!("import/copy_users_out", []);
const COPY_USERS_IN: Sql = sql!("import/copy_users_in", []);
const COPY_MOVIES_OUT: Sql = sql!("import/copy_movies_out", []);
const COPY_MOVIES_IN: Sql = sql!("import/copy_movies_in", []);
const SET_SEQUENCES: Sql = sql!("import/set_sequences", [INT8, INT8]);

/// The tables of the source, each with its required and its optional columns.
const TABLES: [(&str, &[&str], &[&str]); 2] = [
    (
        "auth_user",
        &[
            "id",
            "username",
            "password",
            "email",
            "first_name",
            "last_name",
            "is_active",
            "date_joined",
        ],
        &[],
    ),
    (
        "movies_movie",
        &["id", "title", "genre", "year", "creator_id"],
        &["created_at", "updated_at"],
    ),
];

/// The outcome of an import.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Imported users.
    pub users: i64,
    /// Imported movies.
    pub movies: i64,
    /// Imported users without an e-mail address.
    pub users_without_email: i64,
    /// Imported users whose password cannot be verified, by the description of its hash.
    pub users_locked_out: BTreeMap<&'static str, i64>,
    /// Columns of the source that were not imported.
    pub columns_left_behind: Vec<String>,
    /// The number of records of other models in a dump, by the model's label.
    pub models_passed_over: BTreeMap<String, i64>,
    /// Dates in a dump that have no time zone. They were taken for UTC.
    pub times_without_zone: i64,
    /// Whether a dump lacks the users' ids, so that they have new ones.
    pub has_new_user_ids: bool,
    /// Why nothing was imported; empty after an import.
    pub problems: Vec<String>,
}

/// What to import.
pub enum Source {
    /// The Django application's database.
    Database(ConnectionConfig),
    /// The JSON that `dumpdata` writes.
    Dump {
        /// The text in UTF-8, read once from the beginning to the end.
        input: Box<dyn Read>,
        /// Its size in bytes if known.
        size: Option<u64>,
    },
}

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// One of the two databases failed, or could not be reached in time.
    #[error(transparent)]
    Database(#[from] Error),
    /// The dump could not be read, or is not what `dumpdata` writes. The text has the line and the column.
    #[error("nothing was imported: the dump cannot be read: {0}")]
    Dump(String),
}

/// Progress of an import.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// `dump` while bytes of a dump are read, then the name of the table whose rows are copied.
    pub name: &'static str,
    /// The bytes or rows so far.
    pub done: u64,
    /// All of them if known.
    pub total: Option<u64>,
}

/// Describes a stored password hash that no password matches, without repeating a part of it; `None` for any other one.
pub type DescribeUnverifiable<'a> = &'a dyn Fn(&str) -> Option<&'static str>;

/// Called while a dump is read and while rows are copied.
pub type Progress<'a> = &'a mut dyn FnMut(Step);

/// Copies all users and movies of the source, in one transaction, into a database that has none. Reads one snapshot of a
/// source database and changes nothing there. Rows that cannot be imported are [`Imported::problems`], not an error.
///
/// # Errors
/// If a database cannot be reached within `start_timeout` or fails, or a dump is invalid. Nothing is imported then.
pub fn import(
    source: Source,
    target: &ConnectionConfig,
    start_timeout: Duration,
    describe_unverifiable: DescribeUnverifiable,
    progress: Progress,
) -> Result<Imported, ImportError> {
    check_schema(target, start_timeout)?;
    let server = match &source {
        Source::Database(server) => server,
        Source::Dump { .. } => target,
    };
    let mut client = connect_within(server, start_timeout)?;
    let (mut source, imported, dump) = match source {
        Source::Database(_) => {
            let mut source = begin(&mut client, &BEGIN_READING)?;
            let imported = compare_columns(&mut source)?;
            (source, imported, None)
        }
        Source::Dump { input, size } => {
            // Reading a long dump would be in vain.
            let problems = find_existing_rows(&mut begin(&mut client, &BEGIN_READING)?)?;
            if !problems.is_empty() {
                return Ok(Imported::refused(problems));
            }
            let mut source = begin(&mut client, &dump::CREATE_TABLES)?;
            let mut dump = dump::load(&mut source, input, size, progress)?;
            (source, std::mem::take(&mut dump.imported), Some(dump))
        }
    };
    if !imported.problems.is_empty() {
        return Ok(Imported::refused(imported.problems));
    }
    let mut target = connect_within(target, start_timeout)?;
    let dump = dump.as_ref();
    import_tables(
        &mut source,
        &mut target,
        imported,
        dump,
        describe_unverifiable,
        progress,
    )
}

/// Checks and copies the rows of the source's tables, which are a dump's if `dump` is given. Completes `imported`.
fn import_tables(
    source: &mut Transaction,
    target: &mut Client,
    mut imported: Imported,
    dump: Option<&Loaded>,
    describe_unverifiable: DescribeUnverifiable,
    progress: Progress,
) -> Result<Imported, ImportError> {
    let mut target = begin(target, &BEGIN_WRITING)?;
    imported.problems = find_existing_rows(&mut target)?;
    imported.problems.extend(find_invalid_rows(source, dump)?);
    if !imported.problems.is_empty() {
        return Ok(imported);
    }
    let row = query_one(source, &DESCRIBE_SOURCE)?;
    let count = |column| get(&row, column, &DESCRIBE_SOURCE);
    imported.users = count("users")?;
    imported.movies = count("movies")?;
    imported.users_without_email = count("users_without_email")?;
    let (mut last_user_id, mut last_movie_id) = (count("last_user_id")?, count("last_movie_id")?);
    if dump.is_some() {
        let (dump_user_id, dump_movie_id) = dump::choose_last_ids(source)?;
        last_movie_id = dump_movie_id;
        // New ids of users are past all of the source's already.
        if !imported.has_new_user_ids {
            last_user_id = dump_user_id;
        }
    }
    imported.users_locked_out = count_unverifiable_passwords(source, describe_unverifiable)?;
    copy_tables(source, &mut target, &imported, progress)?;
    let set = target.query(SET_SEQUENCES.text, &[&last_user_id, &last_movie_id]);
    set.map_err(|error| classify(&SET_SEQUENCES, &error))?;
    let committed = target.commit();
    committed.map_err(|error| classify(&BEGIN_WRITING, &error))?;
    Ok(imported)
}

impl Imported {
    fn refused(problems: Vec<String>) -> Imported {
        Imported {
            problems,
            ..Imported::default()
        }
    }
}

/// Finds the columns that the source lacks, which are problems, and those that are not imported.
fn compare_columns(source: &mut Transaction) -> Result<Imported, Error> {
    let mut existing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in query(source, &LIST_COLUMNS)? {
        let columns = existing.entry(get(&row, "table_name", &LIST_COLUMNS)?);
        let column = get(&row, "column_name", &LIST_COLUMNS)?;
        columns.or_default().push(column);
    }
    let mut imported = Imported::default();
    for (table, required, optional) in TABLES {
        let problems = &mut imported.problems;
        let Some(columns) = existing.get(table) else {
            problems.push(format!("the source has no table {table}"));
            continue;
        };
        let exists = |name: &&&str| columns.iter().any(|column| column == **name);
        let missing = required.iter().filter(|name| !exists(name));
        problems.extend(missing.map(|name| format!("{table} has no column {name}")));
        let other = columns.iter().map(String::as_str);
        let other = other.filter(|column| !required.contains(column) && !optional.contains(column));
        let left_behind = &mut imported.columns_left_behind;
        left_behind.extend(other.map(|column| format!("{table}.{column}")));
    }
    Ok(imported)
}

/// An import keeps ids, which existing rows could have already.
fn find_existing_rows(target: &mut Transaction) -> Result<Vec<String>, Error> {
    Ok(match count_rows(target)? {
        (0, 0) => Vec::new(),
        (users, movies) => vec![format!(
            "there are {users} users and {movies} movies already: an import goes into an empty database, once"
        )],
    })
}

fn find_invalid_rows(
    source: &mut Transaction,
    dump: Option<&Loaded>,
) -> Result<Vec<String>, Error> {
    let mut problems = dump.map_or_else(Vec::new, |dump| dump.record_problems.clone());
    for row in query(source, &FIND_INVALID_ROWS)? {
        let problem: String = get(&row, "problem", &FIND_INVALID_ROWS)?;
        if !dump.is_some_and(|dump| dump.consequences.contains(&problem)) {
            problems.push(problem);
        }
    }
    Ok(problems)
}

fn count_rows(target: &mut Transaction) -> Result<(i64, i64), Error> {
    let row = query_one(target, &COUNT_ROWS)?;
    let count = |column| get(&row, column, &COUNT_ROWS);
    Ok((count("users")?, count("movies")?))
}

/// Reads the hashes one after another: all of them may not fit into memory.
fn count_unverifiable_passwords(
    source: &mut Transaction,
    describe_unverifiable: DescribeUnverifiable,
) -> Result<BTreeMap<&'static str, i64>, Error> {
    let sql = &LIST_PASSWORDS;
    let failed = |error: postgres::Error| classify(sql, &error);
    let no_parameters = std::iter::empty::<(&str, Type)>();
    let mut rows = source
        .query_typed_raw(sql.text, no_parameters)
        .map_err(failed)?;
    let mut counts = BTreeMap::new();
    while let Some(row) = rows.next().map_err(failed)? {
        if let Some(description) = describe_unverifiable(get(&row, "password", sql)?) {
            *counts.entry(description).or_default() += 1;
        }
    }
    Ok(counts)
}

fn copy_tables(
    source: &mut Transaction,
    target: &mut Transaction,
    imported: &Imported,
    progress: Progress,
) -> Result<(), Error> {
    for (copy_out, copy_in, name, total) in [
        (&COPY_USERS_OUT, &COPY_USERS_IN, "users", imported.users),
        (&COPY_MOVIES_OUT, &COPY_MOVIES_IN, "movies", imported.movies),
    ] {
        let total = u64::try_from(total).ok();
        copy_rows(source, copy_out, target, copy_in, |done| {
            progress(Step { name, done, total });
        })?;
    }
    if count_rows(target)? != (imported.users, imported.movies) {
        return Err(COUNT_ROWS.fault("the number of written rows is not that of the read rows"));
    }
    Ok(())
}

/// Copies rows in chunks of COPY's text format, in which each row is one line: a line feed in a value is escaped.
fn copy_rows(
    source: &mut Transaction,
    copy_out: &Sql,
    target: &mut Transaction,
    copy_in: &Sql,
    mut progress: impl FnMut(u64),
) -> Result<(), Error> {
    let reader = source.copy_out(copy_out.text);
    let mut reader = reader.map_err(|error| classify(copy_out, &error))?;
    let writer = target.copy_in(copy_in.text);
    let mut writer = writer.map_err(|error| classify(copy_in, &error))?;
    let mut rows = 0;
    loop {
        let chunk = reader.fill_buf().map_err(|error| copy_out.fault(error))?;
        if chunk.is_empty() {
            break;
        }
        writer
            .write_all(chunk)
            .map_err(|error| copy_in.fault(error))?;
        let lines = chunk.iter().filter(|byte| **byte == b'\n').count();
        rows += u64::try_from(lines).unwrap_or_default();
        let size = chunk.len();
        reader.consume(size);
        progress(rows);
    }
    let finished = writer.finish();
    finished
        .map(|_| ())
        .map_err(|error| classify(copy_in, &error))
}

fn query(transaction: &mut Transaction, sql: &Sql) -> Result<Vec<Row>, Error> {
    let rows = transaction.query_typed(sql.text, &[]);
    rows.map_err(|error| classify(sql, &error))
}

fn query_one(transaction: &mut Transaction, sql: &Sql) -> Result<Row, Error> {
    let row = query(transaction, sql)?.into_iter().next();
    row.ok_or_else(|| sql.fault("it returned no row"))
}
