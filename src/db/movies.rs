//! Movies: one function for each file of sql/movies. Each statement also returns whether the requesting user exists and
//! is active, so that a request needs no second statement for it.
//!
//! Create, read, update, delete and the first page of a user's own list each have a [`Coalescer`], which runs the
//! statement for several requests at once; the request's own thread decodes its rows. Other pages and searches differ
//! too much in cost to share a statement: each is run for its request alone.
//!
//! Does not decide who may see or change a movie: `update` and `delete` leave a movie of another user as it is, and all
//! three functions that take a movie's id return its creator ([`Found`]).
use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::sync::Arc;

use postgres::Row;
use serde::Serialize;
use utoipa::ToSchema;

use super::coalescer::{BatchLimits, Coalescer, Input};
use super::executor::Executor;
use super::session::parameters;
use super::users::{Requester, check_requester};
use super::{Error, RequestDatabase, Rows, Sql, coalesce, first_row, get, sql};

const CREATE: Sql = sql!(
    Write "movies/create",
    [INT8_ARRAY, INT8_ARRAY, TEXT_ARRAY, TEXT_ARRAY, INT4_ARRAY]
);
const READ: Sql = sql!("movies/read", [INT8_ARRAY, INT8_ARRAY]);
const UPDATE: Sql = sql!(
    Write "movies/update",
    [INT8_ARRAY, INT8_ARRAY, INT8_ARRAY, TEXT_ARRAY, TEXT_ARRAY, INT4_ARRAY]
);
const DELETE: Sql = sql!(Write "movies/delete", [INT8_ARRAY, INT8_ARRAY, INT8_ARRAY]);
const LIST_FIRST: Sql = sql!("movies/list_first", [INT8_ARRAY, INT8_ARRAY]);
const LIST_OWN: Sql = sql!("movies/list_own", [INT8, INT8, INT8]);
const LIST_ALL: Sql = sql!("movies/list_all", [INT8, INT8, INT8]);
const SEARCH_OWN: Sql =
    sql!(Read "movies/search_own", [INT8, INT8, INT8, TEXT, TEXT, TEXT, INT8, INT8]);
const SEARCH_ALL: Sql =
    sql!(Read "movies/search_all", [INT8, INT8, INT8, TEXT, TEXT, TEXT, INT8, INT8]);

/// A movie as clients see it. The order of the fields is that of the JSON object.
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

/// What a statement did with a movie that exists, and who created the movie.
pub struct Found<T> {
    /// The id of the movie's creator.
    pub creator_id: i64,
    /// What the statement returned or did.
    pub outcome: T,
}

/// A movie to create, with validated fields.
#[derive(Clone)]
pub struct NewMovie {
    /// At most 100 code points.
    pub title: String,
    /// At most 100 code points.
    pub genre: String,
    /// Any 32-bit number.
    pub year: i32,
}

/// The new values of a movie's fields; a field that is `None` keeps its value.
#[derive(Default)]
pub struct Changes {
    /// At most 100 code points.
    pub title: Option<String>,
    /// At most 100 code points.
    pub genre: Option<String>,
    /// Any 32-bit number.
    pub year: Option<i32>,
}

/// Whose movies a list contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The requesting user's.
    Own,
    /// All users'.
    All,
}

/// The number and size of the requested page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// From 1; `None` is the last page.
    pub number: Option<i64>,
    /// Movies on a page, from 1.
    pub size: i64,
}

/// One page of a list, newest movie first.
#[derive(Debug)]
pub struct MoviePage {
    /// The number of movies in the whole list.
    pub total: i64,
    /// The movies on this page; empty past the end of the list.
    pub movies: Vec<Movie>,
}

/// Which movies a search returns. A text matches where it is contained; case is ignored as PostgreSQL's `upper()` does.
pub struct Filter {
    /// Text in the title; empty matches every title.
    pub title: String,
    /// Text in the genre; empty matches every genre.
    pub genre: String,
    /// Text in the creator's username; empty matches every creator.
    pub creator: String,
    /// The years that match; an empty range matches none.
    pub years: RangeInclusive<i64>,
}

/// The coalescers of the statements in this file that take several inputs.
pub(super) struct MovieCoalescers {
    reads: Coalescer<(Requester, i64), Rows, Error>,
    first_pages: Coalescer<(Requester, i64), Rows, Error>,
    creations: Coalescer<(Requester, NewMovie), Rows, Error>,
    updates: Coalescer<(Requester, i64, Changes), Rows, Error>,
    deletions: Coalescer<(Requester, i64), Rows, Error>,
}

impl MovieCoalescers {
    pub fn new(
        read_limits: BatchLimits,
        write_limits: BatchLimits,
        executor: &Arc<Executor>,
    ) -> MovieCoalescers {
        // The parameters of each statement, in their order.
        let user_and_number = |inputs: &[(Requester, i64)]| {
            parameters![
                column(inputs, |(user, _)| user.user_id),
                column(inputs, |(_, number)| *number),
            ]
        };
        let created = |inputs: &[(Requester, NewMovie)]| {
            parameters![
                column(inputs, |(user, _)| user.user_id),
                column(inputs, |(user, _)| user.token_generation),
                column(inputs, |(_, movie)| movie.title.clone()),
                column(inputs, |(_, movie)| movie.genre.clone()),
                column(inputs, |(_, movie)| movie.year),
            ]
        };
        let updated = |inputs: &[(Requester, i64, Changes)]| {
            parameters![
                column(inputs, |(user, ..)| user.user_id),
                column(inputs, |(user, ..)| user.token_generation),
                column(inputs, |(_, id, _)| *id),
                column(inputs, |(.., changes)| changes.title.clone()),
                column(inputs, |(.., changes)| changes.genre.clone()),
                column(inputs, |(.., changes)| changes.year),
            ]
        };
        let deleted = |inputs: &[(Requester, i64)]| {
            parameters![
                column(inputs, |(user, _)| user.user_id),
                column(inputs, |(user, _)| user.token_generation),
                column(inputs, |(_, id)| *id),
            ]
        };
        MovieCoalescers {
            reads: coalesce(executor, read_limits, READ, user_and_number),
            first_pages: coalesce(executor, read_limits, LIST_FIRST, user_and_number),
            creations: coalesce(executor, write_limits, CREATE, created),
            updates: coalesce(executor, write_limits, UPDATE, updated),
            deletions: coalesce(executor, write_limits, DELETE, deleted),
        }
    }
}

/// The user with a movie's id (read, delete) or a page size (first page).
impl Input for (Requester, i64) {
    fn group(&self) -> i64 {
        self.0.user_id
    }
}

/// The user and the movie to create.
impl Input for (Requester, NewMovie) {
    /// Writes of one user wait for the same rows, which are the movies and the user's count of them.
    fn group(&self) -> i64 {
        self.0.user_id
    }
}

/// The user, a movie's id and the changes.
impl Input for (Requester, i64, Changes) {
    fn group(&self) -> i64 {
        self.0.user_id
    }

    /// One UPDATE statement changes a row once, so it can take only one change of each movie.
    fn may_join(&self, other: &Self) -> bool {
        self.1 != other.1
    }
}

/// Returns an array of one value of each input, as a parameter.
fn column<I, T>(inputs: &[I], value: impl Fn(&I) -> T) -> Vec<T> {
    inputs.iter().map(value).collect()
}

/// Creates a movie of the requesting user.
///
/// # Errors
/// [`Error::UnknownUser`], [`Error::InactiveUser`] or [`Error::RevokedToken`] if the user may make no requests with the
/// token; another if the database fails.
pub fn create(
    database: RequestDatabase,
    requester: Requester,
    movie: NewMovie,
) -> Result<Movie, Error> {
    let input = (requester, movie.clone());
    let rows = match database.submit(&database.coalescers().creations, input) {
        // The user was deleted after the statement had found them.
        Err(Error::Conflict(constraint)) if constraint == "movies_creator_exists" => {
            return Err(Error::UnknownUser);
        }
        rows => rows?,
    };
    let row = first_row(&rows, &CREATE)?;
    check_requester(row, requester, &CREATE)?;
    Ok(Movie {
        id: get(row, "id", &CREATE)?,
        title: movie.title,
        genre: movie.genre,
        year: movie.year,
        creator: get(row, "creator", &CREATE)?,
    })
}

/// Returns the movie with this id, no matter who created it.
///
/// # Errors
/// [`Error::MissingMovie`] if there is none; as [`create`] otherwise.
pub fn read(
    database: RequestDatabase,
    requester: Requester,
    id: i64,
) -> Result<Found<Movie>, Error> {
    let rows = database.submit(&database.coalescers().reads, (requester, id))?;
    decode_found(&rows, requester, &READ, |row| {
        decode_movie(row, &READ)?.ok_or(Error::MissingMovie)
    })
}

/// Changes a movie if the requesting user created it. The outcome is the changed movie, or `None` if another user
/// created it or another request deleted it at the same time.
///
/// # Errors
/// As [`read`].
pub fn update(
    database: RequestDatabase,
    requester: Requester,
    id: i64,
    changes: Changes,
) -> Result<Found<Option<Movie>>, Error> {
    let rows = database.submit(&database.coalescers().updates, (requester, id, changes))?;
    decode_found(&rows, requester, &UPDATE, |row| decode_movie(row, &UPDATE))
}

/// Deletes a movie if the requesting user created it. The outcome is `None` if another user created it or another
/// request deleted it at the same time.
///
/// # Errors
/// As [`read`].
pub fn delete(
    database: RequestDatabase,
    requester: Requester,
    id: i64,
) -> Result<Found<Option<()>>, Error> {
    let rows = database.submit(&database.coalescers().deletions, (requester, id))?;
    decode_found(&rows, requester, &DELETE, |row| {
        let deleted: Option<i64> = get(row, "id", &DELETE)?;
        Ok(deleted.map(|_| ()))
    })
}

/// Returns one page of a list.
///
/// # Errors
/// As [`create`].
pub fn list(
    database: RequestDatabase,
    requester: Requester,
    scope: Scope,
    page: PageRequest,
) -> Result<MoviePage, Error> {
    let sql = match (scope, page.number) {
        (Scope::Own, Some(1)) => {
            let input = (requester, page.size);
            let rows = database.submit(&database.coalescers().first_pages, input)?;
            return decode_page(&rows, requester, &LIST_FIRST);
        }
        (Scope::Own, _) => LIST_OWN,
        (Scope::All, _) => LIST_ALL,
    };
    let parameters = parameters![requester.user_id, page.number, page.size];
    decode_page(&database.run(sql, &parameters)?, requester, &sql)
}

/// Returns one page of the movies of a list that match the filter.
///
/// # Errors
/// As [`create`].
pub fn search(
    database: RequestDatabase,
    requester: Requester,
    scope: Scope,
    page: PageRequest,
    filter: &Filter,
) -> Result<MoviePage, Error> {
    let sql = match scope {
        Scope::Own => SEARCH_OWN,
        Scope::All => SEARCH_ALL,
    };
    let parameters = parameters![
        requester.user_id,
        page.number,
        page.size,
        contains_pattern(&filter.title),
        contains_pattern(&filter.genre),
        contains_pattern(&filter.creator),
        *filter.years.start(),
        *filter.years.end(),
    ];
    let rows = database.run(sql, &parameters)?;
    if rows.is_empty() {
        return Err(Error::UnknownUser);
    }
    let mut page = decode_page(&rows, requester, &sql)?;
    // The statements return a page's rows in any order.
    page.movies.sort_by_key(|movie| Reverse(movie.id));
    Ok(page)
}

/// Returns the LIKE pattern that matches texts which contain this one. LIKE's special characters match themselves.
fn contains_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    if !text.is_empty() {
        pattern.push('%');
    }
    pattern
}

/// Decodes the row of one movie: whether the user may make requests, whether the movie exists, then the outcome.
fn decode_found<T>(
    rows: &Rows,
    requester: Requester,
    sql: &Sql,
    decode_outcome: impl FnOnce(&Row) -> Result<T, Error>,
) -> Result<Found<T>, Error> {
    let row = first_row(rows, sql)?;
    check_requester(row, requester, sql)?;
    let creator_id: Option<i64> = get(row, "creator_id", sql)?;
    Ok(Found {
        creator_id: creator_id.ok_or(Error::MissingMovie)?,
        outcome: decode_outcome(row)?,
    })
}

/// The first row is present even if the page is empty: it holds the total, and nulls in place of a movie.
fn decode_page(rows: &[Row], requester: Requester, sql: &Sql) -> Result<MoviePage, Error> {
    let first = first_row(rows, sql)?;
    check_requester(first, requester, sql)?;
    let total = get(first, "total", sql)?;
    let mut movies = Vec::with_capacity(rows.len());
    for row in rows {
        movies.extend(decode_movie(row, sql)?);
    }
    Ok(MoviePage { total, movies })
}

/// Returns the movie in a row, or `None` if its columns are null.
fn decode_movie(row: &Row, sql: &Sql) -> Result<Option<Movie>, Error> {
    let Some(id) = get(row, "id", sql)? else {
        return Ok(None);
    };
    Ok(Some(Movie {
        id,
        title: get(row, "title", sql)?,
        genre: get(row, "genre", sql)?,
        year: get(row, "year", sql)?,
        creator: get(row, "creator", sql)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_pattern_escapes_special_characters_of_like() {
        assert_eq!(contains_pattern(r"100%_\é"), r"%100\%\_\\é%");
        assert_eq!(contains_pattern(""), "%");
    }
}
