//! Takes over the users and movies of a Django application, all or nothing: what is there is judged first, then copied
//! as it is, ids, dates and password hashes included.
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::time::Duration;

use postgres::{Row, Transaction};
use serde::Serialize;

use super::connect::ConnectionConfig;
use super::error::{Error, classify};
use super::movies::get;
use super::schema::{begin, check_schema, connect_within};
use super::{Sql, sql};

const BEGIN_READING: Sql = sql!("import/begin_reading", []);
const BEGIN_WRITING: Sql = sql!("import/begin_writing", []);
const LIST_COLUMNS: Sql = sql!("import/list_columns", []);
const FIND_MISFITS: Sql = sql!("import/find_misfits", []);
const FIND_LOCKED_OUT: Sql = sql!("import/find_locked_out", []);
const DESCRIBE_SOURCE: Sql = sql!("import/describe_source", []);
const COUNT_ROWS: Sql = sql!("import/count_rows", []);
const COPY_USERS_OUT: Sql = sql!("import/copy_users_out", []);
const COPY_USERS_IN: Sql = sql!("import/copy_users_in", []);
const COPY_MOVIES_OUT: Sql = sql!("import/copy_movies_out", []);
const COPY_MOVIES_IN: Sql = sql!("import/copy_movies_in", []);
const MOVE_SEQUENCES: Sql = sql!("import/move_sequences", [INT8, INT8]);

/// The tables of the source: what is taken of each, and what a movie's may have beside.
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

/// What came of an import.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Users that were taken over.
    pub users: i64,
    /// Movies that were taken over.
    pub movies: i64,
    /// How many of the users have no e-mail address.
    pub users_without_email: i64,
    /// How many of the users have a password that cannot be verified here, by the kind of its hash.
    pub users_locked_out: BTreeMap<String, i64>,
    /// Columns of the source that have no place here.
    pub columns_left_behind: Vec<String>,
    /// What has to be mended first. If there is anything, nothing was imported.
    pub problems: Vec<String>,
}

/// What there is in the source.
struct Source {
    users: i64,
    movies: i64,
    users_without_email: i64,
    last_user_id: i64,
    last_movie_id: i64,
}

/// Told of each step: what is copied, how many rows were, and how many there are.
pub type Progress<'a> = &'a mut dyn FnMut(&'static str, u64, u64);

/// Copies all users and movies of the source, in one transaction, into a database that has none. The source is only
/// read, as it is at one moment.
///
/// # Errors
/// If one of the two databases does not answer, or fails.
pub fn import(
    source: &ConnectionConfig,
    target: &ConnectionConfig,
    start_deadline: Duration,
    progress: Progress,
) -> Result<Imported, Error> {
    check_schema(target, start_deadline)?;
    let mut source = connect_within(source, start_deadline)?;
    let mut source = begin(&mut source, &BEGIN_READING)?;
    let (problems, columns_left_behind) = judge_columns(&mut source)?;
    if !problems.is_empty() {
        return Ok(refusal(problems));
    }
    let mut target = connect_within(target, start_deadline)?;
    let mut target = begin(&mut target, &BEGIN_WRITING)?;
    let mut problems = judge_target(&mut target)?;
    for row in ask(&mut source, &FIND_MISFITS)? {
        problems.push(get(&row, "misfit", &FIND_MISFITS)?);
    }
    if !problems.is_empty() {
        return Ok(refusal(problems));
    }
    let found = describe(&mut source)?;
    let mut locked_out = BTreeMap::new();
    for row in ask(&mut source, &FIND_LOCKED_OUT)? {
        let algorithm = get(&row, "algorithm", &FIND_LOCKED_OUT)?;
        locked_out.insert(algorithm, get(&row, "users", &FIND_LOCKED_OUT)?);
    }
    let mut copy = |out: &Sql, into: &Sql, what, total: i64| {
        let total = u64::try_from(total).unwrap_or_default();
        copy_rows(&mut source, out, &mut target, into, |rows| {
            progress(what, rows, total)
        })
    };
    copy(&COPY_USERS_OUT, &COPY_USERS_IN, "users", found.users)?;
    copy(&COPY_MOVIES_OUT, &COPY_MOVIES_IN, "movies", found.movies)?;
    let written = count_rows(&mut target)?;
    if written != (found.users, found.movies) {
        return Err(COUNT_ROWS.fault("what was written is not as much as what was read"));
    }
    let last_ids = [found.last_user_id, found.last_movie_id];
    let moved = target.query(MOVE_SEQUENCES.text, &[&last_ids[0], &last_ids[1]]);
    moved.map_err(|error| classify(&MOVE_SEQUENCES, &error))?;
    let committed = target.commit();
    committed.map_err(|error| classify(&BEGIN_WRITING, &error))?;
    Ok(Imported {
        users: found.users,
        movies: found.movies,
        users_without_email: found.users_without_email,
        users_locked_out: locked_out,
        columns_left_behind,
        problems: Vec::new(),
    })
}

fn refusal(problems: Vec<String>) -> Imported {
    Imported {
        problems,
        ..Imported::default()
    }
}

fn ask(transaction: &mut Transaction, sql: &Sql) -> Result<Vec<Row>, Error> {
    let rows = transaction.query_typed(sql.text, &[]);
    rows.map_err(|error| classify(sql, &error))
}

fn ask_one(transaction: &mut Transaction, sql: &Sql) -> Result<Row, Error> {
    let row = ask(transaction, sql)?.into_iter().next();
    row.ok_or_else(|| sql.fault("it answered without a row"))
}

/// What the source's tables lack, and what they have that is not taken.
fn judge_columns(source: &mut Transaction) -> Result<(Vec<String>, Vec<String>), Error> {
    let mut there: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in ask(source, &LIST_COLUMNS)? {
        let columns = there.entry(get(&row, "table_name", &LIST_COLUMNS)?);
        let column = get(&row, "column_name", &LIST_COLUMNS)?;
        columns.or_default().push(column);
    }
    let (mut problems, mut left_behind) = (Vec::new(), Vec::new());
    for (table, taken, welcome) in TABLES {
        let Some(columns) = there.get(table) else {
            problems.push(format!("the source has no table {table}"));
            continue;
        };
        let is_there = |name: &&&str| columns.iter().any(|column| column == **name);
        let missing = taken.iter().filter(|name| !is_there(name));
        problems.extend(missing.map(|name| format!("{table} has no column {name}")));
        let rest = columns.iter().map(String::as_str);
        let rest = rest.filter(|column| !taken.contains(column) && !welcome.contains(column));
        left_behind.extend(rest.map(|column| format!("{table}.{column}")));
    }
    Ok((problems, left_behind))
}

/// Ids are kept, so nobody may have one yet.
fn judge_target(target: &mut Transaction) -> Result<Vec<String>, Error> {
    Ok(match count_rows(target)? {
        (0, 0) => Vec::new(),
        (users, movies) => vec![format!(
            "there are {users} users and {movies} movies already: an import goes into an empty database, once"
        )],
    })
}

fn count_rows(target: &mut Transaction) -> Result<(i64, i64), Error> {
    let row = ask_one(target, &COUNT_ROWS)?;
    let count = |column| get(&row, column, &COUNT_ROWS);
    Ok((count("users")?, count("movies")?))
}

fn describe(source: &mut Transaction) -> Result<Source, Error> {
    let row = ask_one(source, &DESCRIBE_SOURCE)?;
    let count = |column| get(&row, column, &DESCRIBE_SOURCE);
    Ok(Source {
        users: count("users")?,
        movies: count("movies")?,
        users_without_email: count("users_without_email")?,
        last_user_id: count("last_user_id")?,
        last_movie_id: count("last_movie_id")?,
    })
}

/// Hands the rows on as they come, in COPY's text: each is a line, since a line feed in a value is escaped.
fn copy_rows(
    source: &mut Transaction,
    out: &Sql,
    target: &mut Transaction,
    into: &Sql,
    mut progress: impl FnMut(u64),
) -> Result<(), Error> {
    let reader = source.copy_out(out.text);
    let mut reader = reader.map_err(|error| classify(out, &error))?;
    let writer = target.copy_in(into.text);
    let mut writer = writer.map_err(|error| classify(into, &error))?;
    let mut rows = 0;
    loop {
        let chunk = reader.fill_buf().map_err(|error| out.fault(error))?;
        if chunk.is_empty() {
            break;
        }
        writer.write_all(chunk).map_err(|error| into.fault(error))?;
        let lines = chunk.iter().filter(|byte| **byte == b'\n').count();
        rows += u64::try_from(lines).unwrap_or_default();
        let size = chunk.len();
        reader.consume(size);
        progress(rows);
    }
    let finished = writer.finish();
    finished.map(|_| ()).map_err(|error| classify(into, &error))
}
