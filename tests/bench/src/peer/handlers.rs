//! The peer's handlers: a request's fields in, one statement, JSON out.
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

use super::{ALWAYS, App, Asker, Origin, REQUEST_ID, statements};

/// A refusal or a fault: a status alone is enough for a bench, whose answers are all good ones.
pub struct Refusal(pub StatusCode);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl From<tokio_postgres::Error> for Refusal {
    fn from(_: tokio_postgres::Error) -> Refusal {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<deadpool_postgres::PoolError> for Refusal {
    fn from(_: deadpool_postgres::PoolError) -> Refusal {
        Refusal(StatusCode::SERVICE_UNAVAILABLE)
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
struct Envelope {
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
    answer_json(&app, StatusCode::OK, &Health { status: "ok" })
}

/// What was counted.
pub async fn show_metrics() -> Result<String, Refusal> {
    let mut registry = Registry::default();
    metrics::register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|_| Refusal(StatusCode::INTERNAL_SERVER_ERROR))?;
    Ok(text)
}

pub async fn list_movies(
    State(app): State<App>,
    Asker(user_id): Asker,
    origin: Origin,
    Query(query): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let size = query.page_size.filter(|size| *size > 0).unwrap_or(10);
    let size = size.min(100);
    let number = match query.page.as_deref() {
        None => Some(1),
        Some("last") => None,
        Some(number) => match number.parse() {
            Ok(number @ 1..) => Some(number),
            _ => return Err(Refusal(StatusCode::NOT_FOUND)),
        },
    };
    let title = query.title.as_deref().unwrap_or_default().trim();
    let (total, results) = match number {
        _ if !title.is_empty() => statements::search(&app, user_id, number, size, title).await?,
        Some(1) => statements::list_first(&app, user_id, size).await?,
        _ => statements::list_shelf(&app, user_id, number, size).await?,
    };
    let last = ((total + size - 1) / size).max(1);
    let number = number.unwrap_or(last);
    if number > last {
        return Err(Refusal(StatusCode::NOT_FOUND));
    }
    let link_to = |page: i64| query.link_to(&origin, page);
    let envelope = Envelope {
        count: total,
        next: (number < last).then(|| link_to(number + 1)),
        previous: (number > 1).then(|| link_to(number - 1)),
        results,
    };
    Ok(answer_json(&app, StatusCode::OK, &envelope))
}

impl ListQuery {
    /// The address of another page: the parameters by name, without the page if it is the first.
    fn link_to(&self, Origin(origin): &Origin, page: i64) -> String {
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
            "" => format!("{origin}/api/v1/movies/"),
            query => format!("{origin}/api/v1/movies/?{query}"),
        }
    }
}

pub async fn create_movie(
    State(app): State<App>,
    Asker(user_id): Asker,
    Json(movie): Json<NewMovie>,
) -> Result<Response, Refusal> {
    check_text(&movie.title)?;
    check_text(&movie.genre)?;
    let movie = statements::create(&app, user_id, movie).await?;
    Ok(answer_json(&app, StatusCode::CREATED, &movie))
}

pub async fn read_movie(
    State(app): State<App>,
    Asker(user_id): Asker,
    Path(id): Path<i64>,
) -> Result<Response, Refusal> {
    let movie = statements::read(&app, user_id, id).await?;
    Ok(answer_json(&app, StatusCode::OK, &movie))
}

pub async fn update_movie(
    State(app): State<App>,
    Asker(user_id): Asker,
    Path(id): Path<i64>,
    Json(changes): Json<Changes>,
) -> Result<Response, Refusal> {
    for text in [&changes.title, &changes.genre].into_iter().flatten() {
        check_text(text)?;
    }
    let movie = statements::update(&app, user_id, id, changes).await?;
    Ok(answer_json(&app, StatusCode::OK, &movie))
}

pub async fn delete_movie(
    State(app): State<App>,
    Asker(user_id): Asker,
    Path(id): Path<i64>,
) -> Result<Response, Refusal> {
    statements::delete(&app, user_id, id).await?;
    Ok(finish(&app, StatusCode::NO_CONTENT.into_response()))
}

fn check_text(text: &str) -> Result<(), Refusal> {
    let is_good = !text.trim().is_empty() && text.chars().count() <= 100 && !text.contains('\0');
    is_good
        .then_some(())
        .ok_or(Refusal(StatusCode::BAD_REQUEST))
}

fn answer_json<T: Serialize>(app: &App, status: StatusCode, body: &T) -> Response {
    let Ok(bytes) = serde_json::to_vec(body) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    finish(app, response)
}

/// The headers that every answer has.
fn finish(app: &App, mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let number = app.0.request_ids.fetch_add(1, Ordering::Relaxed);
    if let Ok(id) = HeaderValue::try_from(format!("{number:016x}")) {
        headers.insert(REQUEST_ID, id);
    }
    response
}
