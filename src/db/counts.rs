//! Compares the counts that triggers maintain (`users.movie_count`, `movie_counts`, `movie_count_ranges`) with the rows, and
//! corrects them. Sequences that are behind their table's ids are treated alike, since a load of data can leave both wrong.
use std::time::Duration;

use postgres::Transaction;
use serde::Serialize;

use super::connect::ConnectionConfig;
use super::error::{Error, classify};
use super::get;
use super::schema::{begin, connect_within, within};
use super::{Kind, Sql, sql};

const BEGIN_CHECK: Sql = sql!("counts/begin_check", []);
const BEGIN_RECOUNT: Sql = sql!("counts/begin_recount", []);
const COUNT_WRONG: Sql = sql!("counts/count_wrong", []);

/// The statements that correct the counts, in the order in which the triggers lock them.
const CORRECTIONS: [Sql; 4] = [
    sql!("counts/correct_users", []),
    sql!("counts/correct_total", []),
    sql!("counts/correct_ranges", []),
    sql!("counts/advance_sequences", []),
];

/// The maintained counts, compared with the rows.
#[derive(Clone, Debug, Serialize)]
pub struct Counts {
    /// Users, counted row by row.
    pub users: i64,
    /// Movies, counted row by row.
    pub movies: i64,
    /// The maintained number of all movies.
    pub kept_total: i64,
    /// Users whose maintained number of movies is wrong.
    pub wrong_users: i64,
    /// Users whose ranges have wrong counts, or who have more than 2000 movies and no ranges.
    pub wrong_lists: i64,
    /// Sequences that would give out an existing id.
    pub sequences_behind: i64,
}

impl Counts {
    /// Whether all counts and sequences agree with the rows.
    pub fn are_right(&self) -> bool {
        self.kept_total == self.movies
            && [self.wrong_users, self.wrong_lists, self.sequences_behind] == [0; 3]
    }
}

/// Limits a recount: 300,000 movies take a second, and each statement is limited to a minute.
const RECOUNT_TIMEOUT: Duration = Duration::from_secs(180);

/// Compares the counts with the rows of one snapshot. Changes nothing and takes no lock.
///
/// # Errors
/// If the database cannot be reached within `start_timeout`, or fails.
pub fn check(database: &ConnectionConfig, start_timeout: Duration) -> Result<Counts, Error> {
    let database = database.clone();
    within(RECOUNT_TIMEOUT, Kind::Read, move || {
        check_now(&database, start_timeout)
    })
}

fn check_now(database: &ConnectionConfig, start_timeout: Duration) -> Result<Counts, Error> {
    let mut client = connect_within(database, start_timeout)?;
    let mut transaction = begin(&mut client, &BEGIN_CHECK)?;
    count_wrong(&mut transaction)
}

/// Corrects the counts in one transaction, during which no other one writes movies. Returns what was found before.
///
/// # Errors
/// If the database cannot be reached within `start_timeout`, or fails; or if another transaction that writes movies does
/// not end within 10 s. Nothing is changed then.
pub fn recount(database: &ConnectionConfig, start_timeout: Duration) -> Result<Counts, Error> {
    let database = database.clone();
    within(RECOUNT_TIMEOUT, Kind::Write, move || {
        recount_now(&database, start_timeout)
    })
}

fn recount_now(database: &ConnectionConfig, start_timeout: Duration) -> Result<Counts, Error> {
    let mut client = connect_within(database, start_timeout)?;
    let mut transaction = begin(&mut client, &BEGIN_RECOUNT)?;
    let found = count_wrong(&mut transaction)?;
    if found.are_right() {
        return Ok(found);
    }
    for correction in &CORRECTIONS {
        transaction
            .batch_execute(correction.text)
            .map_err(|error| classify(correction, &error))?;
    }
    if !count_wrong(&mut transaction)?.are_right() {
        return Err(COUNT_WRONG.fault("the corrected counts are still wrong: nothing was changed"));
    }
    let committed = transaction.commit();
    committed.map_err(|error| classify(&BEGIN_RECOUNT, &error))?;
    Ok(found)
}

fn count_wrong(transaction: &mut Transaction) -> Result<Counts, Error> {
    let rows = transaction.query_typed(COUNT_WRONG.text, &[]);
    let rows = rows.map_err(|error| classify(&COUNT_WRONG, &error))?;
    let row = rows.first();
    let row = row.ok_or_else(|| COUNT_WRONG.fault("it returned no row"))?;
    let count = |column| get(row, column, &COUNT_WRONG);
    Ok(Counts {
        users: count("users")?,
        movies: count("movies")?,
        kept_total: count("kept_total")?,
        wrong_users: count("wrong_users")?,
        wrong_lists: count("wrong_lists")?,
        sequences_behind: count("sequences_behind")?,
    })
}
