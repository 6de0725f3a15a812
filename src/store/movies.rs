//! What the database knows of movies: one function per file of sql/movies/. Every statement first answers who asks.
use std::ops::RangeInclusive;

use postgres::Row;
use serde::Serialize;

use super::{Error, Sql, Store, sql};

const CREATE: Sql = sql!("movies/create");
const READ: Sql = sql!("movies/read");
const UPDATE: Sql = sql!("movies/update");
const DELETE: Sql = sql!("movies/delete");
const LIST: Sql = sql!("movies/list");
const SEARCH: Sql = sql!("movies/search");

/// A movie as clients see it, its fields in the order of the answer.
#[derive(Debug, Serialize)]
pub struct Movie {
    /// From 1.
    pub id: i64,
    /// At most 100 code points.
    pub title: String,
    /// At most 100 code points.
    pub genre: String,
    /// Any 32-bit number.
    pub year: i32,
    /// The creator's username.
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

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// From 1; `None` is the last page.
    pub number: Option<i64>,
    /// Movies on a page, from 1.
    pub size: i64,
}

/// One page of a list, newest first.
pub struct Page {
    /// How many movies the whole list has.
    pub total: i64,
    /// Those on this page; none past the end.
    pub movies: Vec<Movie>,
}

/// What a search keeps. A text is contained, its case ignored as PostgreSQL's `upper()` ignores it.
pub struct Filter {
    /// In the title; `None` keeps all.
    pub title: Option<String>,
    /// In the genre; `None` keeps all.
    pub genre: Option<String>,
    /// In the creator's username; `None` keeps all.
    pub creator: Option<String>,
    /// The years kept; an empty range keeps none.
    pub years: RangeInclusive<i64>,
}

/// Makes a movie of the user who asks.
pub fn create(store: &Store, asker: i64, movie: NewMovie) -> Result<Movie, Error> {
    let row = match store.query_one(&CREATE, &[&asker, &movie.title, &movie.genre, &movie.year]) {
        // The user was deleted between the statement's look and its write.
        Err(Error::Conflict(constraint)) if constraint == "movies_creator_exists" => {
            return Err(Error::UnknownUser);
        }
        answer => answer?,
    };
    let read = || -> Result<_, postgres::Error> {
        let id: Option<i64> = row.try_get("id")?;
        let creator: Option<String> = row.try_get("creator")?;
        Ok((id, creator))
    };
    admit(&row, &CREATE)?;
    match read().map_err(|error| CREATE.fault(error))? {
        (Some(id), Some(creator)) => Ok(Movie {
            id,
            title: movie.title,
            genre: movie.genre,
            year: movie.year,
            creator,
        }),
        _ => Err(CREATE.fault("an active user's movie was not made")),
    }
}

/// The movie with this id, whoever made it.
pub fn read(store: &Store, asker: i64, id: i64) -> Result<Found, Error> {
    let row = store.query_one(&READ, &[&asker, &id])?;
    admit(&row, &READ)?;
    let creator_id: Option<i64> = get(&row, "creator_id", &READ)?;
    let movie = decode(&row).map_err(|error| READ.fault(error))?;
    match (movie, creator_id) {
        (Some(movie), Some(creator_id)) => Ok(Found { movie, creator_id }),
        _ => Err(Error::MissingMovie),
    }
}

/// Changes a movie of the user who asks; gives it as it is now.
pub fn update(store: &Store, asker: i64, id: i64, changes: &Changes) -> Result<Movie, Error> {
    let row = store.query_one(
        &UPDATE,
        &[&asker, &id, &changes.title, &changes.genre, &changes.year],
    )?;
    admit_owner(&row, asker, &UPDATE)?;
    // One that another request deleted meanwhile is missing too.
    let movie = decode(&row).map_err(|error| UPDATE.fault(error))?;
    movie.ok_or(Error::MissingMovie)
}

/// Deletes a movie of the user who asks. Of several at once, one succeeds.
pub fn delete(store: &Store, asker: i64, id: i64) -> Result<(), Error> {
    let row = store.query_one(&DELETE, &[&asker, &id])?;
    admit_owner(&row, asker, &DELETE)?;
    let deleted: Option<i64> = get(&row, "id", &DELETE)?;
    deleted.map(|_| ()).ok_or(Error::MissingMovie)
}

/// One page of the movies of `creator`, or of everybody's.
pub fn list(
    store: &Store,
    asker: i64,
    creator: Option<i64>,
    page: PageRequest,
) -> Result<Page, Error> {
    let rows = store.query(&LIST, &[&asker, &creator, &page.number, &page.size])?;
    decode_page(&rows, &LIST)
}

/// One page of those movies of `creator`, or of everybody's, that the filter keeps.
pub fn search(
    store: &Store,
    asker: i64,
    creator: Option<i64>,
    page: PageRequest,
    filter: &Filter,
) -> Result<Page, Error> {
    let contains = |text: &Option<String>| text.as_deref().map(contains_pattern);
    let rows = store.query(
        &SEARCH,
        &[
            &asker,
            &creator,
            &page.number,
            &page.size,
            &contains(&filter.title),
            &contains(&filter.genre),
            &contains(&filter.creator),
            filter.years.start(),
            filter.years.end(),
        ],
    )?;
    decode_page(&rows, &SEARCH)
}

/// The LIKE pattern of what contains the text; in it LIKE's own characters stand for themselves.
fn contains_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

fn get<'a, T: postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: &str,
    sql: &Sql,
) -> Result<T, Error> {
    row.try_get(column).map_err(|error| sql.fault(error))
}

/// Refuses on behalf of one who is not there or not active.
fn admit(row: &Row, sql: &Sql) -> Result<(), Error> {
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
fn decode(row: &Row) -> Result<Option<Movie>, postgres::Error> {
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

fn decode_page(rows: &[Row], sql: &Sql) -> Result<Page, Error> {
    let first = rows
        .first()
        .ok_or_else(|| sql.fault("it answered without a row"))?;
    admit(first, sql)?;
    let total = get(first, "total", sql)?;
    let movies: Result<_, postgres::Error> = rows
        .iter()
        .filter_map(|row| decode(row).transpose())
        .collect();
    Ok(Page {
        total,
        movies: movies.map_err(|error| sql.fault(error))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_s_own_characters_are_literal() {
        assert_eq!(contains_pattern(r"100%_\é"), r"%100\%\_\\é%");
    }
}
