//! What the database knows of single movies: one function per statement, each answered in batches. Every statement
//! first answers who asks.
use postgres::Row;
use postgres::types::FromSql;
use serde::Serialize;
use utoipa::ToSchema;

use super::batch::Batch;
use super::{Error, Group, Sql, Store, group_by_place, only_row, sql};

const CREATE: Sql = sql!(
    "movies/create",
    [INT8_ARRAY, TEXT_ARRAY, TEXT_ARRAY, INT4_ARRAY]
);
const READ: Sql = sql!("movies/read", [INT8_ARRAY, INT8_ARRAY]);
const UPDATE: Sql = sql!(
    "movies/update",
    [INT8_ARRAY, INT8_ARRAY, TEXT_ARRAY, TEXT_ARRAY, INT4_ARRAY]
);
const DELETE: Sql = sql!("movies/delete", [INT8_ARRAY, INT8_ARRAY]);

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

/// Who asks, and for which movie.
pub(super) type Questions = Batch<(i64, i64), Group, Error>;
/// Who asks, and what is to be made.
pub(super) type Creations = Batch<(i64, NewMovie), Group, Error>;
/// Who asks, for which movie, and what is to change.
pub(super) type Updates = Batch<(i64, i64, Changes), Group, Error>;

/// Makes a movie of the user who asks.
pub fn create(store: &Store, asker: i64, movie: NewMovie) -> Result<Movie, Error> {
    let run = |questions: &[(i64, NewMovie)]| {
        let askers: Vec<i64> = questions.iter().map(|(asker, _)| *asker).collect();
        let titles: Vec<&str> = questions
            .iter()
            .map(|(_, movie)| movie.title.as_str())
            .collect();
        let genres: Vec<&str> = questions
            .iter()
            .map(|(_, movie)| movie.genre.as_str())
            .collect();
        let years: Vec<i32> = questions.iter().map(|(_, movie)| movie.year).collect();
        let rows = store.write(&CREATE, &[&askers, &titles, &genres, &years])?;
        group_by_place(rows, questions.len(), &CREATE)
    };
    let asked = (asker, movie.clone());
    match store.creations.submit(asked, |_, _| true, run) {
        Ok(group) => decode_created(&group, movie),
        // The user was deleted between the statement's look and its write.
        Err(Error::Conflict(constraint)) if constraint == "movies_creator_exists" => {
            Err(Error::UnknownUser)
        }
        Err(error) => Err(error),
    }
}

fn decode_created(group: &Group, movie: NewMovie) -> Result<Movie, Error> {
    let row = only_row(group, &CREATE)?;
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
pub fn read(store: &Store, asker: i64, id: i64) -> Result<Found, Error> {
    let run = |questions: &[(i64, i64)]| {
        let (askers, ids): (Vec<_>, Vec<_>) = questions.iter().copied().unzip();
        let rows = store.read(&READ, &[&askers, &ids])?;
        group_by_place(rows, questions.len(), &READ)
    };
    let group = store.reads.submit((asker, id), |_, _| true, run)?;
    let row = only_row(&group, &READ)?;
    admit(row, &READ)?;
    let movie = decode(row).map_err(|error| READ.fault(error))?;
    Ok(Found {
        movie: movie.ok_or(Error::MissingMovie)?,
        creator_id: get(row, "creator_id", &READ)?,
    })
}

/// Changes a movie of the user who asks; gives it as it is now.
pub fn update(store: &Store, asker: i64, id: i64, changes: Changes) -> Result<Movie, Error> {
    let run = |questions: &[(i64, i64, Changes)]| {
        let askers: Vec<i64> = questions.iter().map(|(asker, _, _)| *asker).collect();
        let ids: Vec<i64> = questions.iter().map(|(_, id, _)| *id).collect();
        let changes = || questions.iter().map(|(_, _, changes)| changes);
        let titles: Vec<_> = changes().map(|changes| changes.title.as_deref()).collect();
        let genres: Vec<_> = changes().map(|changes| changes.genre.as_deref()).collect();
        let years: Vec<_> = changes().map(|changes| changes.year).collect();
        let rows = store.write(&UPDATE, &[&askers, &ids, &titles, &genres, &years])?;
        group_by_place(rows, questions.len(), &UPDATE)
    };
    // The statement hears only one question about a movie: a second one waits for the next batch.
    let is_of_another_movie = |taken: &[(i64, i64, Changes)], next: &(i64, i64, Changes)| {
        taken.iter().all(|(_, id, _)| *id != next.1)
    };
    let group = store
        .updates
        .submit((asker, id, changes), is_of_another_movie, run)?;
    let row = only_row(&group, &UPDATE)?;
    admit_owner(row, asker, &UPDATE)?;
    // One that another request deleted meanwhile is missing too.
    let movie = decode(row).map_err(|error| UPDATE.fault(error))?;
    movie.ok_or(Error::MissingMovie)
}

/// Deletes a movie of the user who asks. Of several at once, one succeeds.
pub fn delete(store: &Store, asker: i64, id: i64) -> Result<(), Error> {
    let run = |questions: &[(i64, i64)]| {
        let (askers, ids): (Vec<_>, Vec<_>) = questions.iter().copied().unzip();
        let rows = store.write(&DELETE, &[&askers, &ids])?;
        group_by_place(rows, questions.len(), &DELETE)
    };
    let group = store.deletions.submit((asker, id), |_, _| true, run)?;
    let row = only_row(&group, &DELETE)?;
    admit_owner(row, asker, &DELETE)?;
    let deleted: Option<i64> = get(row, "id", &DELETE)?;
    deleted.map(|_| ()).ok_or(Error::MissingMovie)
}

pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str, sql: &Sql) -> Result<T, Error> {
    row.try_get(column).map_err(|error| sql.fault(error))
}

/// Refuses on behalf of one who is not there or not active.
pub(super) fn admit(row: &Row, sql: &Sql) -> Result<(), Error> {
    match get(row, "asker_is_active", sql)? {
        None => Err(Error::UnknownUser),
        Some(false) => Err(Error::InactiveUser),
        Some(true) => Ok(()),
    }
}

/// Refuses whoever may not change the movie, in the order of judgement: who asks, whether it is there, whose it is.
fn admit_owner(row: &Row, asker: i64, sql: &Sql) -> Result<(), Error> {
    admit(row, sql)?;
    match get::<Option<i64>>(row, "creator_id", sql)? {
        None => Err(Error::MissingMovie),
        Some(creator_id) if creator_id != asker => Err(Error::ForeignMovie),
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
