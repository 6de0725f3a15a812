//! Compares the counts that triggers maintain (`users.movie_count`, `movie_counts`, `movie_count_ranges`) with the rows, and
//! corrects them. Sequences that are behind their table's ids are treated alike, since a load of data can leave both wrong.
use std::time::Duration;

use postgres::{Client, Transaction};
use serde::Serialize;

use super::connect::ConnectionConfig;
use super::error::{Error, classify};
use super::schema::{begin, query, with_client};
use super::{Kind, Sql, decode, first_row, sql};

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

/// Limits a check or a recount: 300,000 movies take a second, and each statement is limited to a minute.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Compares the counts with the rows of one snapshot. Changes nothing and takes no lock.
///
/// # Errors
/// If the database cannot be reached within `start_timeout`, or fails.
pub fn check(database: &ConnectionConfig, start_timeout: Duration) -> Result<Counts, Error> {
    with_client(database, start_timeout, TIMEOUT, Kind::Read, |client| {
        count_wrong(&mut begin(client, &BEGIN_CHECK)?)
    })
}

/// Corrects the counts in one transaction, during which no other one writes movies. Returns what was found before.
///
/// # Errors
/// If the database cannot be reached within `start_timeout`, or fails; or if another transaction that writes movies does
/// not end within 10 s. Nothing is changed then.
pub fn recount(database: &ConnectionConfig, start_timeout: Duration) -> Result<Counts, Error> {
    with_client(database, start_timeout, TIMEOUT, Kind::Write, correct)
}

fn correct(client: &mut Client) -> Result<Counts, Error> {
    let mut transaction = begin(client, &BEGIN_RECOUNT)?;
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
    let rows = query(transaction, &COUNT_WRONG)?;
    let row = first_row(&rows, &COUNT_WRONG)?;
    Ok(decode!(row, &COUNT_WRONG => Counts {
        users, movies, kept_total, wrong_users, wrong_lists, sequences_behind,
    }))
}
