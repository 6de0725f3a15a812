//! The counts that triggers keep (`users.movie_count`, `movie_counts`, `shelf_parts`): compared with the rows, and
//! corrected. Sequences that are behind their table's ids are treated alike, since a load of data leaves both.
use std::time::Duration;

use postgres::Transaction;
use serde::Serialize;

use super::connect::ConnectionConfig;
use super::error::{Error, classify};
use super::movies::get;
use super::schema::{begin, connect_within, within};
use super::{Kind, Sql, sql};

const BEGIN_CHECKING: Sql = sql!("counts/begin_checking", []);
const BEGIN_RECOUNTING: Sql = sql!("counts/begin_recounting", []);
const FIND_WRONG: Sql = sql!("counts/find_wrong", []);

/// What corrects the counts, in the order in which a creation locks them.
const CORRECTIONS: [Sql; 4] = [
    sql!("counts/correct_users", []),
    sql!("counts/correct_total", []),
    sql!("counts/correct_lists", []),
    sql!("counts/advance_sequences", []),
];

/// The kept counts beside what the rows say.
#[derive(Clone, Debug, Serialize)]
pub struct Counts {
    /// Users, counted row by row.
    pub users: i64,
    /// Movies, counted row by row.
    pub movies: i64,
    /// The kept number of all movies.
    pub kept_total: i64,
    /// Users whose kept number of movies is wrong.
    pub wrong_users: i64,
    /// Users whose list has more than 2000 movies, or had, and is counted in parts wrongly or not at all.
    pub wrong_lists: i64,
    /// Sequences that would give out an id that is there.
    pub sequences_behind: i64,
}

impl Counts {
    /// Whether everything agrees with the rows.
    pub fn are_right(&self) -> bool {
        self.kept_total == self.movies
            && [self.wrong_users, self.wrong_lists, self.sequences_behind] == [0; 3]
    }
}

/// How long a recount may take: 300,000 movies take a second, and no statement of it longer than a minute.
const RECOUNT_TIMEOUT: Duration = Duration::from_secs(180);

/// Compares the kept counts with the rows of one snapshot. Changes nothing and takes no lock.
///
/// # Errors
/// If the database does not answer, or fails.
pub fn check(database: &ConnectionConfig, start_deadline: Duration) -> Result<Counts, Error> {
    let database = database.clone();
    within(RECOUNT_TIMEOUT, Kind::Read, move || {
        check_now(&database, start_deadline)
    })
}

fn check_now(database: &ConnectionConfig, start_deadline: Duration) -> Result<Counts, Error> {
    let mut client = connect_within(database, start_deadline)?;
    let mut transaction = begin(&mut client, &BEGIN_CHECKING)?;
    find_wrong(&mut transaction)
}

/// Corrects the kept counts in one transaction, during which nobody else writes movies. Returns what was found before.
///
/// # Errors
/// If the database does not answer, or fails; if a transaction that writes movies does not end within the lock's
/// timeout. Nothing was changed then.
pub fn recount(database: &ConnectionConfig, start_deadline: Duration) -> Result<Counts, Error> {
    let database = database.clone();
    within(RECOUNT_TIMEOUT, Kind::Write, move || {
        recount_now(&database, start_deadline)
    })
}

fn recount_now(database: &ConnectionConfig, start_deadline: Duration) -> Result<Counts, Error> {
    let mut client = connect_within(database, start_deadline)?;
    let mut transaction = begin(&mut client, &BEGIN_RECOUNTING)?;
    let found = find_wrong(&mut transaction)?;
    if found.are_right() {
        return Ok(found);
    }
    for correction in &CORRECTIONS {
        transaction
            .batch_execute(correction.text)
            .map_err(|error| classify(correction, &error))?;
    }
    if !find_wrong(&mut transaction)?.are_right() {
        return Err(FIND_WRONG.fault("the counts are wrong still: nothing was changed"));
    }
    let committed = transaction.commit();
    committed.map_err(|error| classify(&BEGIN_RECOUNTING, &error))?;
    Ok(found)
}

fn find_wrong(transaction: &mut Transaction) -> Result<Counts, Error> {
    let rows = transaction.query_typed(FIND_WRONG.text, &[]);
    let rows = rows.map_err(|error| classify(&FIND_WRONG, &error))?;
    let row = rows.first();
    let row = row.ok_or_else(|| FIND_WRONG.fault("it returned no row"))?;
    let count = |column| get(row, column, &FIND_WRONG);
    Ok(Counts {
        users: count("users")?,
        movies: count("movies")?,
        kept_total: count("kept_total")?,
        wrong_users: count("wrong_users")?,
        wrong_lists: count("wrong_lists")?,
        sequences_behind: count("sequences_behind")?,
    })
}
