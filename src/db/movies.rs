//! What the database knows of single movies: one function per statement, each answered in batches. Every statement
//! first answers who asks.
use std::sync::Arc;

use postgres::Row;
use postgres::types::FromSql;
use serde::Serialize;
use utoipa::ToSchema;

use super::coalescer::{Coalescer, Input, Limits};
use super::executor::Executor;
use super::session::{Parameters, parameters};
use super::{Access, Error, Rows, Sql, only_row, run_batch, sql};

const CREATE: Sql = sql!(
    write "movies/create",
    [INT8_ARRAY, TEXT_ARRAY, TEXT_ARRAY, INT4_ARRAY]
);
const READ: Sql = sql!("movies/read", [INT8_ARRAY, INT8_ARRAY]);
const UPDATE: Sql = sql!(
    write "movies/update",
    [INT8_ARRAY, INT8_ARRAY, TEXT_ARRAY, TEXT_ARRAY, INT4_ARRAY]
);
const DELETE: Sql = sql!(write "movies/delete", [INT8_ARRAY, INT8_ARRAY]);

/// A movie as clients see it, its fields in the order of the answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Movie {
    /// From 1.
    #[schema(example = 1)]
    pub id: i64,
    /// At most 100 code points.
    #[schema(example = "Heat")]
    pub title: String,
    /// At most 100 code points.
    #[schema(example = "Crime")]
    pub genre: String,
    /// Any 32-bit number.
    #[schema(example = 1995)]
    pub year: i32,
    /// The creator's username.
    #[schema(example = "ann")]
    pub creator: String,
}

/// A movie and whose it is.
pub struct Found {
    /// The movie.
    pub movie: Movie,
    /// The creator's id.
    pub creator_id: i64,
}

/// A movie to be made; every field was judged before.
#[derive(Clone)]
pub struct NewMovie {
    /// At most 100 code points.
    pub title: String,
    /// At most 100 code points.
    pub genre: String,
    /// Any 32-bit number.
    pub year: i32,
}

/// What is to change in a movie; `None` leaves a field as it is.
#[derive(Default)]
pub struct Changes {
    /// At most 100 code points.
    pub title: Option<String>,
    /// At most 100 code points.
    pub genre: Option<String>,
    /// Any 32-bit number.
    pub year: Option<i32>,
}

/// A user's id and a movie's.
pub(super) type MovieInputs = Coalescer<(i64, i64), Rows, Error>;
/// A user's id and a new movie.
pub(super) type Creations = Coalescer<(i64, NewMovie), Rows, Error>;
/// A user's id, a movie's, and what is to change in it.
pub(super) type Updates = Coalescer<(i64, i64, Changes), Rows, Error>;

/// Writes about movies of one user wait for the same rows: the movies, and the user's count of them.
impl Input for (i64, i64) {
    fn group(&self) -> i64 {
        self.0
    }
}

impl Input for (i64, NewMovie) {
    fn group(&self) -> i64 {
        self.0
    }
}

impl Input for (i64, i64, Changes) {
    fn group(&self) -> i64 {
        self.0
    }

    /// The statement takes one change of a movie only.
    fn may_join(&self, other: &Self) -> bool {
        self.1 != other.1
    }
}

pub(super) fn coalesce_creations(limits: Limits, executor: &Arc<Executor>) -> Creations {
    let executor = Arc::clone(executor);
    Coalescer::new(limits, move |inputs: &[(i64, NewMovie)], deadline| {
        let users: Vec<i64> = inputs.iter().map(|(user, _)| *user).collect();
        let movies = || inputs.iter().map(|(_, movie)| movie);
        let titles: Vec<String> = movies().map(|movie| movie.title.clone()).collect();
        let genres: Vec<String> = movies().map(|movie| movie.genre.clone()).collect();
        let years: Vec<i32> = movies().map(|movie| movie.year).collect();
        let parameters: Parameters = parameters![users, titles, genres, years];
        run_batch(&executor, CREATE, &parameters, inputs.len(), deadline)
    })
}

pub(super) fn coalesce_updates(limits: Limits, executor: &Arc<Executor>) -> Updates {
    let executor = Arc::clone(executor);
    Coalescer::new(limits, move |inputs: &[(i64, i64, Changes)], deadline| {
        let users: Vec<i64> = inputs.iter().map(|(user, _, _)| *user).collect();
        let ids: Vec<i64> = inputs.iter().map(|(_, id, _)| *id).collect();
        let changes = || inputs.iter().map(|(_, _, changes)| changes);
        let titles: Vec<_> = changes().map(|changes| changes.title.clone()).collect();
        let genres: Vec<_> = changes().map(|changes| changes.genre.clone()).collect();
        let years: Vec<_> = changes().map(|changes| changes.year).collect();
        let parameters: Parameters = parameters![users, ids, titles, genres, years];
        run_batch(&executor, UPDATE, &parameters, inputs.len(), deadline)
    })
}

pub(super) fn coalesce_deletions(limits: Limits, executor: &Arc<Executor>) -> MovieInputs {
    coalesce_pairs(DELETE, limits, executor)
}

pub(super) fn coalesce_reads(limits: Limits, executor: &Arc<Executor>) -> MovieInputs {
    coalesce_pairs(READ, limits, executor)
}

/// For a statement whose parameters are two arrays of numbers.
pub(super) fn coalesce_pairs(sql: Sql, limits: Limits, executor: &Arc<Executor>) -> MovieInputs {
    let executor = Arc::clone(executor);
    Coalescer::new(limits, move |inputs: &[(i64, i64)], deadline| {
        let (first, second): (Vec<i64>, Vec<i64>) = inputs.iter().copied().unzip();
        let parameters: Parameters = parameters![first, second];
        run_batch(&executor, sql, &parameters, inputs.len(), deadline)
    })
}

/// Makes a movie of the user who asks.
pub fn create(access: Access, user_id: i64, movie: NewMovie) -> Result<Movie, Error> {
    let input = (user_id, movie.clone());
    let creations = &access.store.creations;
    match creations.submit(input, access.batch_deadline()) {
        Ok(rows) => decode_created(&rows, movie),
        // The user was deleted between the statement's look and its write.
        Err(Error::Conflict(constraint)) if constraint == "movies_creator_exists" => {
            Err(Error::UnknownUser)
        }
        Err(error) => Err(error),
    }
}

fn decode_created(rows: &Rows, movie: NewMovie) -> Result<Movie, Error> {
    let row = only_row(rows, &CREATE)?;
    admit(row, &CREATE)?;
    Ok(Movie {
        id: get(row, "id", &CREATE)?,
        title: movie.title,
        genre: movie.genre,
        year: movie.year,
        creator: get(row, "creator", &CREATE)?,
    })
}

/// The movie with this id, whoever made it.
pub fn read(access: Access, user_id: i64, id: i64) -> Result<Found, Error> {
    let reads = &access.store.reads;
    let rows = reads.submit((user_id, id), access.batch_deadline())?;
    let row = only_row(&rows, &READ)?;
    admit(row, &READ)?;
    let movie = decode(row).map_err(|error| READ.fault(error))?;
    Ok(Found {
        movie: movie.ok_or(Error::MissingMovie)?,
        creator_id: get(row, "creator_id", &READ)?,
    })
}

/// Changes a movie of the user who asks; gives it as it is now.
pub fn update(access: Access, user_id: i64, id: i64, changes: Changes) -> Result<Movie, Error> {
    let updates = &access.store.updates;
    let rows = updates.submit((user_id, id, changes), access.batch_deadline())?;
    let row = only_row(&rows, &UPDATE)?;
    admit_owner(row, user_id, &UPDATE)?;
    // One that another request deleted meanwhile is missing too.
    let movie = decode(row).map_err(|error| UPDATE.fault(error))?;
    movie.ok_or(Error::MissingMovie)
}

/// Deletes a movie of the user who asks. Of several at once, one succeeds.
pub fn delete(access: Access, user_id: i64, id: i64) -> Result<(), Error> {
    let deletions = &access.store.deletions;
    let rows = deletions.submit((user_id, id), access.batch_deadline())?;
    let row = only_row(&rows, &DELETE)?;
    admit_owner(row, user_id, &DELETE)?;
    let deleted: Option<i64> = get(row, "id", &DELETE)?;
    deleted.map(|_| ()).ok_or(Error::MissingMovie)
}

pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str, sql: &Sql) -> Result<T, Error> {
    row.try_get(column).map_err(|error| sql.fault(error))
}

/// Refuses on behalf of one who is not there or not active.
pub(super) fn admit(row: &Row, sql: &Sql) -> Result<(), Error> {
    match get(row, "user_is_active", sql)? {
        None => Err(Error::UnknownUser),
        Some(false) => Err(Error::InactiveUser),
        Some(true) => Ok(()),
    }
}

/// Refuses whoever may not change the movie, in the order of judgement: who asks, whether it is there, whose it is.
fn admit_owner(row: &Row, user_id: i64, sql: &Sql) -> Result<(), Error> {
    admit(row, sql)?;
    match get::<Option<i64>>(row, "creator_id", sql)? {
        None => Err(Error::MissingMovie),
        Some(creator_id) if creator_id != user_id => Err(Error::ForeignMovie),
        Some(_) => Ok(()),
    }
}

/// The movie in a row, if its columns are not null.
pub(super) fn decode(row: &Row) -> Result<Option<Movie>, postgres::Error> {
    let Some(id) = row.try_get("id")? else {
        return Ok(None);
    };
    Ok(Some(Movie {
        id,
        title: row.try_get("title")?,
        genre: row.try_get("genre")?,
        year: row.try_get("year")?,
        creator: row.try_get("creator")?,
    }))
}
