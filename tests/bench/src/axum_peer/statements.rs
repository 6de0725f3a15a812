//! The statements of the axum peer. Each is prepared once per connection and takes one round trip; its rows also tell
//! whether the user exists, is active and may see the movie.
use std::cmp::Reverse;
use std::time::Instant;

use axum::http::StatusCode;
use movies_api::telemetry::metrics;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::App;
use super::handlers::{Changes, Movie, NewMovie, StatusError};

const CREATE: (&str, &str) = ("create", include_str!("../../sql/create.sql"));
const DELETE: (&str, &str) = ("delete", include_str!("../../sql/delete.sql"));
const LIST_FIRST: (&str, &str) = ("list_first", include_str!("../../sql/list_first.sql"));
const READ: (&str, &str) = ("read", include_str!("../../sql/read.sql"));
const UPDATE: (&str, &str) = ("update", include_str!("../../sql/update.sql"));
// The service, too, executes these once per request.
const LIST_OWN: (&str, &str) = (
    "list_own",
    include_str!("../../../../sql/movies/list_own.sql"),
);
const SEARCH_OWN: (&str, &str) = (
    "search_own",
    include_str!("../../../../sql/movies/search_own.sql"),
);

async fn query(
    app: &App,
    (name, text): (&'static str, &str),
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StatusError> {
    let start = Instant::now();
    let client = app.0.pool.get().await?;
    let checked_out = Instant::now();
    metrics::count_checkout(checked_out - start);
    let statement = client.prepare_cached(text).await?;
    let rows = client.query(&statement, parameters).await;
    metrics::count_statement(name, checked_out.elapsed());
    Ok(rows?)
}

/// The first row, if the user exists and is active.
fn require_active_user(rows: &[Row]) -> Result<&Row, StatusError> {
    let row = rows
        .first()
        .ok_or(StatusError(StatusCode::INTERNAL_SERVER_ERROR))?;
    match row.try_get("user_is_active")? {
        Some(true) => Ok(row),
        _ => Err(StatusError(StatusCode::UNAUTHORIZED)),
    }
}

/// The first row, if the user is the creator of its movie.
fn require_creator(rows: &[Row], user_id: i64) -> Result<&Row, StatusError> {
    let row = require_active_user(rows)?;
    match row.try_get::<_, Option<i64>>("creator_id")? {
        None => Err(StatusError(StatusCode::NOT_FOUND)),
        Some(creator) if creator != user_id => Err(StatusError(StatusCode::FORBIDDEN)),
        Some(_) => Ok(row),
    }
}

fn decode(row: &Row) -> Result<Option<Movie>, StatusError> {
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

fn decode_page(rows: &[Row]) -> Result<(i64, Vec<Movie>), StatusError> {
    let total = require_active_user(rows)?.try_get("total")?;
    let movies = rows.iter().filter_map(|row| decode(row).transpose());
    Ok((total, movies.collect::<Result<_, _>>()?))
}

pub async fn create(app: &App, user_id: i64, movie: NewMovie) -> Result<Movie, StatusError> {
    let NewMovie { title, genre, year } = movie;
    let rows = query(app, CREATE, &[&user_id, &title, &genre, &year]).await?;
    let row = require_active_user(&rows)?;
    Ok(Movie {
        id: row.try_get("id")?,
        creator: row.try_get("creator")?,
        title,
        genre,
        year,
    })
}

pub async fn read(app: &App, user_id: i64, id: i64) -> Result<Movie, StatusError> {
    let rows = query(app, READ, &[&user_id, &id]).await?;
    decode(require_creator(&rows, user_id)?)?.ok_or(StatusError(StatusCode::NOT_FOUND))
}

pub async fn update(
    app: &App,
    user_id: i64,
    id: i64,
    changes: Changes,
) -> Result<Movie, StatusError> {
    let Changes { title, genre, year } = changes;
    let rows = query(app, UPDATE, &[&user_id, &id, &title, &genre, &year]).await?;
    decode(require_creator(&rows, user_id)?)?.ok_or(StatusError(StatusCode::NOT_FOUND))
}

pub async fn delete(app: &App, user_id: i64, id: i64) -> Result<(), StatusError> {
    let rows = query(app, DELETE, &[&user_id, &id]).await?;
    let deleted: Option<i64> = require_creator(&rows, user_id)?.try_get("id")?;
    deleted
        .map(|_| ())
        .ok_or(StatusError(StatusCode::NOT_FOUND))
}

pub async fn list_first(
    app: &App,
    user_id: i64,
    size: i64,
) -> Result<(i64, Vec<Movie>), StatusError> {
    decode_page(&query(app, LIST_FIRST, &[&user_id, &size]).await?)
}

pub async fn list_page(
    app: &App,
    user_id: i64,
    page: Option<i64>,
    size: i64,
) -> Result<(i64, Vec<Movie>), StatusError> {
    decode_page(&query(app, LIST_OWN, &[&user_id, &page, &size]).await?)
}

pub async fn search(
    app: &App,
    user_id: i64,
    page: Option<i64>,
    size: i64,
    title: &str,
) -> Result<(i64, Vec<Movie>), StatusError> {
    let escaped = title
        .replace('\\', r"\\")
        .replace('%', r"\%")
        .replace('_', r"\_");
    let pattern = format!("%{escaped}%");
    let years = (i64::from(i32::MIN), i64::from(i32::MAX));
    let rows = query(
        app,
        SEARCH_OWN,
        &[
            &user_id, &page, &size, &pattern, &"%", &"%", &years.0, &years.1,
        ],
    )
    .await?;
    // Without such a user there are no rows; the order of the rows is not defined.
    if rows.is_empty() {
        return Err(StatusError(StatusCode::UNAUTHORIZED));
    }
    let (total, mut movies) = decode_page(&rows)?;
    movies.sort_by_key(|movie| Reverse(movie.id));
    Ok((total, movies))
}
