//! Imports the users and movies of a Django application, all or nothing. Validates every row first, then copies the rows
//! unchanged, including ids, dates and password hashes.
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::time::Duration;

use postgres::{Row, Transaction};
use serde::Serialize;

use super::connect::ConnectionConfig;
use super::error::{Error, classify};
use super::get;
use super::schema::{begin, check_schema, connect_within};
use super::{Sql, sql};

const BEGIN_READING: Sql = sql!("import/begin_reading", []);
const BEGIN_WRITING: Sql = sql!("import/begin_writing", []);
const LIST_COLUMNS: Sql = sql!("import/list_columns", []);
const FIND_INVALID_ROWS: Sql = sql!("import/find_invalid_rows", []);
const FIND_UNVERIFIABLE_PASSWORDS: Sql = sql!("import/find_unverifiable_passwords", []);
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
    /// Imported users whose password cannot be verified, by the algorithm of its hash.
    pub users_locked_out: BTreeMap<String, i64>,
    /// Columns of the source that were not imported.
    pub columns_left_behind: Vec<String>,
    /// Why nothing was imported; empty after an import.
    pub problems: Vec<String>,
}

/// What the source contains; the ids are the last ones given out.
struct Source {
    users: i64,
    movies: i64,
    users_without_email: i64,
    last_user_id: i64,
    last_movie_id: i64,
}

/// Called while rows are copied, with the name of the table, the rows copied so far, and all rows of the table.
pub type Progress<'a> = &'a mut dyn FnMut(&'static str, u64, u64);

/// Copies all users and movies of the source, in one transaction, into a database that has none. Reads one snapshot of the
/// source and changes nothing there. Rows that cannot be imported are [`Imported::problems`], not an error.
///
/// # Errors
/// If one of the two databases cannot be reached within `start_timeout`, or fails. Nothing is imported then.
pub fn import(
    source: &ConnectionConfig,
    target: &ConnectionConfig,
    start_timeout: Duration,
    progress: Progress,
) -> Result<Imported, Error> {
    check_schema(target, start_timeout)?;
    let mut source = connect_within(source, start_timeout)?;
    let mut source = begin(&mut source, &BEGIN_READING)?;
    let (problems, columns_left_behind) = compare_columns(&mut source)?;
    if !problems.is_empty() {
        return Ok(Imported::refused(problems));
    }
    let mut target = connect_within(target, start_timeout)?;
    let mut target = begin(&mut target, &BEGIN_WRITING)?;
    let mut problems = find_existing_rows(&mut target)?;
    for row in query(&mut source, &FIND_INVALID_ROWS)? {
        problems.push(get(&row, "problem", &FIND_INVALID_ROWS)?);
    }
    if !problems.is_empty() {
        return Ok(Imported::refused(problems));
    }
    let found = describe_source(&mut source)?;
    let users_locked_out = count_unverifiable_passwords(&mut source)?;
    copy_tables(&mut source, &mut target, &found, progress)?;
    let last_ids = [found.last_user_id, found.last_movie_id];
    let set = target.query(SET_SEQUENCES.text, &[&last_ids[0], &last_ids[1]]);
    set.map_err(|error| classify(&SET_SEQUENCES, &error))?;
    let committed = target.commit();
    committed.map_err(|error| classify(&BEGIN_WRITING, &error))?;
    Ok(Imported {
        users: found.users,
        movies: found.movies,
        users_without_email: found.users_without_email,
        users_locked_out,
        columns_left_behind,
        problems: Vec::new(),
    })
}

impl Imported {
    fn refused(problems: Vec<String>) -> Imported {
        Imported {
            problems,
            ..Imported::default()
        }
    }
}

/// Returns the columns that the source lacks, as problems, and the names of those that are not imported.
fn compare_columns(source: &mut Transaction) -> Result<(Vec<String>, Vec<String>), Error> {
    let mut existing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in query(source, &LIST_COLUMNS)? {
        let columns = existing.entry(get(&row, "table_name", &LIST_COLUMNS)?);
        let column = get(&row, "column_name", &LIST_COLUMNS)?;
        columns.or_default().push(column);
    }
    let (mut problems, mut left_behind) = (Vec::new(), Vec::new());
    for (table, required, optional) in TABLES {
        let Some(columns) = existing.get(table) else {
            problems.push(format!("the source has no table {table}"));
            continue;
        };
        let exists = |name: &&&str| columns.iter().any(|column| column == **name);
        let missing = required.iter().filter(|name| !exists(name));
        problems.extend(missing.map(|name| format!("{table} has no column {name}")));
        let other = columns.iter().map(String::as_str);
        let other = other.filter(|column| !required.contains(column) && !optional.contains(column));
        left_behind.extend(other.map(|column| format!("{table}.{column}")));
    }
    Ok((problems, left_behind))
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

fn count_rows(target: &mut Transaction) -> Result<(i64, i64), Error> {
    let row = query_one(target, &COUNT_ROWS)?;
    let count = |column| get(&row, column, &COUNT_ROWS);
    Ok((count("users")?, count("movies")?))
}

fn describe_source(source: &mut Transaction) -> Result<Source, Error> {
    let row = query_one(source, &DESCRIBE_SOURCE)?;
    let count = |column| get(&row, column, &DESCRIBE_SOURCE);
    Ok(Source {
        users: count("users")?,
        movies: count("movies")?,
        users_without_email: count("users_without_email")?,
        last_user_id: count("last_user_id")?,
        last_movie_id: count("last_movie_id")?,
    })
}

fn count_unverifiable_passwords(source: &mut Transaction) -> Result<BTreeMap<String, i64>, Error> {
    let sql = &FIND_UNVERIFIABLE_PASSWORDS;
    let rows = query(source, sql)?;
    let counts = rows
        .iter()
        .map(|row| Ok((get(row, "algorithm", sql)?, get(row, "users", sql)?)));
    counts.collect()
}

fn copy_tables(
    source: &mut Transaction,
    target: &mut Transaction,
    found: &Source,
    progress: Progress,
) -> Result<(), Error> {
    for (copy_out, copy_in, table, total) in [
        (&COPY_USERS_OUT, &COPY_USERS_IN, "users", found.users),
        (&COPY_MOVIES_OUT, &COPY_MOVIES_IN, "movies", found.movies),
    ] {
        let total = u64::try_from(total).unwrap_or_default();
        copy_rows(source, copy_out, target, copy_in, |rows| {
            progress(table, rows, total)
        })?;
    }
    if count_rows(target)? != (found.users, found.movies) {
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
