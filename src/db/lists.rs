//! What the database knows of lists of movies: pages of a shelf or of everybody's movies, and searches in them. Every
//! statement first answers who asks.
use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::sync::Arc;

use postgres::Row;

use super::coalescer::Limits;
use super::executor::Executor;
use super::movies::{Movie, MovieInputs, admit, coalesce_pairs, decode, get};
use super::session::{Parameters, parameters};
use super::{Access, Error, Sql, sql};

const LIST_FIRST: Sql = sql!("movies/list_first", [INT8_ARRAY, INT8_ARRAY]);
const LIST_OWN: Sql = sql!("movies/list_own", [INT8, INT8, INT8]);
const LIST_ALL: Sql = sql!("movies/list_all", [INT8, INT8, INT8]);
const SEARCH_OWN: Sql = sql!(
    "movies/search_own",
    [INT8, INT8, INT8, TEXT, TEXT, TEXT, INT8, INT8]
);
const SEARCH_ALL: Sql = sql!(
    "movies/search_all",
    [INT8, INT8, INT8, TEXT, TEXT, TEXT, INT8, INT8]
);

/// Whose movies a list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// Those of the user who asks.
    Own,
    /// Everybody's.
    All,
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
#[derive(Debug)]
pub struct Page {
    /// How many movies the whole list has.
    pub total: i64,
    /// Those on this page; none past the end.
    pub movies: Vec<Movie>,
}

/// What a search keeps. A text is contained, its case ignored as PostgreSQL's `upper()` ignores it.
pub struct Filter {
    /// In the title; empty keeps all.
    pub title: String,
    /// In the genre; empty keeps all.
    pub genre: String,
    /// In the creator's username; empty keeps all.
    pub creator: String,
    /// The years kept; an empty range keeps none.
    pub years: RangeInclusive<i64>,
}

/// A user's id, and how many movies are wanted.
pub(super) type FirstPages = MovieInputs;

pub(super) fn coalesce_first_pages(limits: Limits, executor: &Arc<Executor>) -> FirstPages {
    coalesce_pairs(LIST_FIRST, limits, executor)
}

/// One page of the movies of a shelf. First pages of one's own are answered in batches; others differ too much in
/// what they cost.
pub fn list(access: Access, user_id: i64, shelf: Shelf, page: PageRequest) -> Result<Page, Error> {
    let sql = match (shelf, page.number) {
        (Shelf::Own, Some(1)) => return list_first(access, user_id, page.size),
        (Shelf::Own, _) => LIST_OWN,
        (Shelf::All, _) => LIST_ALL,
    };
    let parameters: Parameters = parameters![user_id, page.number, page.size];
    decode_page(&access.run(sql, &parameters)?, &sql)
}

fn list_first(access: Access, user_id: i64, size: i64) -> Result<Page, Error> {
    let first_pages = &access.store.first_pages;
    let rows = first_pages.submit((user_id, size), access.batch_deadline())?;
    decode_page(&rows, &LIST_FIRST)
}

/// One page of those movies of a shelf that the filter keeps.
pub fn search(
    access: Access,
    user_id: i64,
    shelf: Shelf,
    page: PageRequest,
    filter: &Filter,
) -> Result<Page, Error> {
    let sql = match shelf {
        Shelf::Own => SEARCH_OWN,
        Shelf::All => SEARCH_ALL,
    };
    let parameters: Parameters = parameters![
        user_id,
        page.number,
        page.size,
        contains_pattern(&filter.title),
        contains_pattern(&filter.genre),
        contains_pattern(&filter.creator),
        *filter.years.start(),
        *filter.years.end(),
    ];
    let rows = access.run(sql, &parameters)?;
    if rows.is_empty() {
        return Err(Error::UnknownUser);
    }
    let mut page = decode_page(&rows, &sql)?;
    page.movies.sort_by_key(|movie| Reverse(movie.id));
    Ok(page)
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
    if !text.is_empty() {
        pattern.push('%');
    }
    pattern
}

fn decode_page(rows: &[Row], sql: &Sql) -> Result<Page, Error> {
    let first = rows
        .first()
        .ok_or_else(|| sql.fault("it answered without a row"))?;
    admit(first, sql)?;
    let total = get(first, "total", sql)?;
    let mut movies = Vec::with_capacity(rows.len());
    for row in rows {
        movies.extend(decode(row).map_err(|error| sql.fault(error))?);
    }
    Ok(Page { total, movies })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_s_own_characters_are_literal() {
        assert_eq!(contains_pattern(r"100%_\é"), r"%100\%\_\\é%");
        assert_eq!(contains_pattern(""), "%");
    }
}
