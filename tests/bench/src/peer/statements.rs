//! The peer's statements: each prepared once per connection, each one round trip, whoever asks judged by its row.
use std::cmp::Reverse;
use std::time::Instant;

use axum::http::StatusCode;
use movies_api::telemetry::metrics;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::App;
use super::handlers::{Changes, Movie, NewMovie, Refusal};

const CREATE: (&str, &str) = ("create", include_str!("../../sql/create.sql"));
const DELETE: (&str, &str) = ("delete", include_str!("../../sql/delete.sql"));
const LIST_FIRST: (&str, &str) = ("list_first", include_str!("../../sql/list_first.sql"));
const READ: (&str, &str) = ("read", include_str!("../../sql/read.sql"));
const UPDATE: (&str, &str) = ("update", include_str!("../../sql/update.sql"));
// These answer one question in the product too.
const LIST_SHELF: (&str, &str) = (
    "list_shelf",
    include_str!("../../../../sql/movies/list_own.sql"),
);
const SEARCH_SHELF: (&str, &str) = (
    "search_shelf",
    include_str!("../../../../sql/movies/search_own.sql"),
);

async fn query(
    app: &App,
    (name, text): (&'static str, &str),
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Refusal> {
    let began = Instant::now();
    let client = app.0.pool.get().await?;
    let got = Instant::now();
    metrics::count_checkout(got - began);
    let statement = client.prepare_cached(text).await?;
    let rows = client.query(&statement, parameters).await;
    metrics::count_statement(name, got.elapsed());
    Ok(rows?)
}

/// The first row of the answer, if whoever asks may ask.
fn admit(rows: &[Row]) -> Result<&Row, Refusal> {
    let row = rows
        .first()
        .ok_or(Refusal(StatusCode::INTERNAL_SERVER_ERROR))?;
    match row.try_get("user_is_active")? {
        Some(true) => Ok(row),
        _ => Err(Refusal(StatusCode::UNAUTHORIZED)),
    }
}

/// The first row, if whoever asks is the movie's creator.
fn admit_owner(rows: &[Row], user_id: i64) -> Result<&Row, Refusal> {
    let row = admit(rows)?;
    match row.try_get::<_, Option<i64>>("creator_id")? {
        None => Err(Refusal(StatusCode::NOT_FOUND)),
        Some(creator) if creator != user_id => Err(Refusal(StatusCode::FORBIDDEN)),
        Some(_) => Ok(row),
    }
}

fn decode(row: &Row) -> Result<Option<Movie>, Refusal> {
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

fn decode_page(rows: &[Row]) -> Result<(i64, Vec<Movie>), Refusal> {
    let total = admit(rows)?.try_get("total")?;
    let movies = rows.iter().filter_map(|row| decode(row).transpose());
    Ok((total, movies.collect::<Result<_, _>>()?))
}

pub async fn create(app: &App, user_id: i64, movie: NewMovie) -> Result<Movie, Refusal> {
    let NewMovie { title, genre, year } = movie;
    let rows = query(app, CREATE, &[&user_id, &title, &genre, &year]).await?;
    let row = admit(&rows)?;
    Ok(Movie {
        id: row.try_get("id")?,
        creator: row.try_get("creator")?,
        title,
        genre,
        year,
    })
}

pub async fn read(app: &App, user_id: i64, id: i64) -> Result<Movie, Refusal> {
    let rows = query(app, READ, &[&user_id, &id]).await?;
    decode(admit_owner(&rows, user_id)?)?.ok_or(Refusal(StatusCode::NOT_FOUND))
}

pub async fn update(app: &App, user_id: i64, id: i64, changes: Changes) -> Result<Movie, Refusal> {
    let Changes { title, genre, year } = changes;
    let rows = query(app, UPDATE, &[&user_id, &id, &title, &genre, &year]).await?;
    decode(admit_owner(&rows, user_id)?)?.ok_or(Refusal(StatusCode::NOT_FOUND))
}

pub async fn delete(app: &App, user_id: i64, id: i64) -> Result<(), Refusal> {
    let rows = query(app, DELETE, &[&user_id, &id]).await?;
    let deleted: Option<i64> = admit_owner(&rows, user_id)?.try_get("id")?;
    deleted.map(|_| ()).ok_or(Refusal(StatusCode::NOT_FOUND))
}

pub async fn list_first(app: &App, user_id: i64, size: i64) -> Result<(i64, Vec<Movie>), Refusal> {
    decode_page(&query(app, LIST_FIRST, &[&user_id, &size]).await?)
}

pub async fn list_shelf(
    app: &App,
    user_id: i64,
    page: Option<i64>,
    size: i64,
) -> Result<(i64, Vec<Movie>), Refusal> {
    decode_page(&query(app, LIST_SHELF, &[&user_id, &page, &size]).await?)
}

pub async fn search(
    app: &App,
    user_id: i64,
    page: Option<i64>,
    size: i64,
    title: &str,
) -> Result<(i64, Vec<Movie>), Refusal> {
    let escaped = title
        .replace('\\', r"\\")
        .replace('%', r"\%")
        .replace('_', r"\_");
    let pattern = format!("%{escaped}%");
    let years = (i64::from(i32::MIN), i64::from(i32::MAX));
    let rows = query(
        app,
        SEARCH_SHELF,
        &[
            &user_id, &page, &size, &pattern, &"%", &"%", &years.0, &years.1,
        ],
    )
    .await?;
    // One who is not there has no row, and the rows come in any order.
    if rows.is_empty() {
        return Err(Refusal(StatusCode::UNAUTHORIZED));
    }
    let (total, mut movies) = decode_page(&rows)?;
    movies.sort_by_key(|movie| Reverse(movie.id));
    Ok((total, movies))
}
