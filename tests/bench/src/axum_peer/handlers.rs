//! The handlers of the axum peer: each parses a request, executes one statement and writes JSON.
use std::sync::atomic::Ordering;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use movies_api::telemetry::metrics;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use super::{App, BaseUrl, COMMON_HEADERS, CurrentUser, REQUEST_ID, statements};

/// An error response without a body: the bench sends only requests that succeed.
pub struct StatusError(pub StatusCode);

impl IntoResponse for StatusError {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl From<tokio_postgres::Error> for StatusError {
    fn from(_: tokio_postgres::Error) -> StatusError {
        StatusError(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<deadpool_postgres::PoolError> for StatusError {
    fn from(_: deadpool_postgres::PoolError) -> StatusError {
        StatusError(StatusCode::SERVICE_UNAVAILABLE)
    }
}

#[derive(Serialize)]
pub struct Movie {
    pub id: i64,
    pub title: String,
    pub genre: String,
    pub year: i32,
    pub creator: String,
}

#[derive(Deserialize)]
pub struct NewMovie {
    pub title: String,
    pub genre: String,
    pub year: i32,
}

#[derive(Deserialize)]
pub struct Changes {
    pub title: Option<String>,
    pub genre: Option<String>,
    pub year: Option<i32>,
}

#[derive(Deserialize)]
pub struct ListQuery {
    page: Option<String>,
    page_size: Option<i64>,
    title: Option<String>,
}

#[derive(Serialize)]
struct Page {
    count: i64,
    next: Option<String>,
    previous: Option<String>,
    results: Vec<Movie>,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

pub async fn check_liveness(State(app): State<App>) -> Response {
    json_response(&app, StatusCode::OK, &Health { status: "ok" })
}

pub async fn show_metrics() -> Result<String, StatusError> {
    let mut registry = Registry::default();
    metrics::register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|_| StatusError(StatusCode::INTERNAL_SERVER_ERROR))?;
    Ok(text)
}

pub async fn list_movies(
    State(app): State<App>,
    CurrentUser(user_id): CurrentUser,
    base_url: BaseUrl,
    Query(query): Query<ListQuery>,
) -> Result<Response, StatusError> {
    let size = query.page_size.filter(|size| *size > 0).unwrap_or(10);
    let size = size.min(100);
    let number = match query.page.as_deref() {
        None => Some(1),
        Some("last") => None,
        Some(number) => match number.parse() {
            Ok(number @ 1..) => Some(number),
            _ => return Err(StatusError(StatusCode::NOT_FOUND)),
        },
    };
    let title = query.title.as_deref().unwrap_or_default().trim();
    let (total, results) = match number {
        _ if !title.is_empty() => statements::search(&app, user_id, number, size, title).await?,
        Some(1) => statements::list_first(&app, user_id, size).await?,
        _ => statements::list_page(&app, user_id, number, size).await?,
    };
    let last = ((total + size - 1) / size).max(1);
    let number = number.unwrap_or(last);
    if number > last {
        return Err(StatusError(StatusCode::NOT_FOUND));
    }
    let link_to = |page: i64| query.link_to(&base_url, page);
    let body = Page {
        count: total,
        next: (number < last).then(|| link_to(number + 1)),
        previous: (number > 1).then(|| link_to(number - 1)),
        results,
    };
    Ok(json_response(&app, StatusCode::OK, &body))
}

impl ListQuery {
    /// The URL of another page: the same parameters, without `page` if it is 1.
    fn link_to(&self, BaseUrl(base_url): &BaseUrl, page: i64) -> String {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        if page != 1 {
            pairs.append_pair("page", &page.to_string());
        }
        if let Some(size) = self.page_size {
            pairs.append_pair("page_size", &size.to_string());
        }
        if let Some(title) = &self.title {
            pairs.append_pair("title", title);
        }
        match pairs.finish().as_str() {
            "" => format!("{base_url}/api/v1/movies/"),
            query => format!("{base_url}/api/v1/movies/?{query}"),
        }
    }
}

pub async fn create_movie(
    State(app): State<App>,
    CurrentUser(user_id): CurrentUser,
    Json(movie): Json<NewMovie>,
) -> Result<Response, StatusError> {
    check_text(&movie.title)?;
    check_text(&movie.genre)?;
    let movie = statements::create(&app, user_id, movie).await?;
    Ok(json_response(&app, StatusCode::CREATED, &movie))
}

pub async fn read_movie(
    State(app): State<App>,
    CurrentUser(user_id): CurrentUser,
    Path(id): Path<i64>,
) -> Result<Response, StatusError> {
    let movie = statements::read(&app, user_id, id).await?;
    Ok(json_response(&app, StatusCode::OK, &movie))
}

pub async fn update_movie(
    State(app): State<App>,
    CurrentUser(user_id): CurrentUser,
    Path(id): Path<i64>,
    Json(changes): Json<Changes>,
) -> Result<Response, StatusError> {
    for text in [&changes.title, &changes.genre].into_iter().flatten() {
        check_text(text)?;
    }
    let movie = statements::update(&app, user_id, id, changes).await?;
    Ok(json_response(&app, StatusCode::OK, &movie))
}

pub async fn delete_movie(
    State(app): State<App>,
    CurrentUser(user_id): CurrentUser,
    Path(id): Path<i64>,
) -> Result<Response, StatusError> {
    statements::delete(&app, user_id, id).await?;
    Ok(finish(&app, StatusCode::NO_CONTENT.into_response()))
}

fn check_text(text: &str) -> Result<(), StatusError> {
    let is_valid = !text.trim().is_empty() && text.chars().count() <= 100 && !text.contains('\0');
    is_valid
        .then_some(())
        .ok_or(StatusError(StatusCode::BAD_REQUEST))
}

fn json_response<T: Serialize>(app: &App, status: StatusCode, body: &T) -> Response {
    let Ok(bytes) = serde_json::to_vec(body) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    finish(app, response)
}

/// Adds the headers that every response has.
fn finish(app: &App, mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in COMMON_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let number = app.0.request_ids.fetch_add(1, Ordering::Relaxed);
    if let Ok(id) = HeaderValue::try_from(format!("{number:016x}")) {
        headers.insert(REQUEST_ID, id);
    }
    response
}
