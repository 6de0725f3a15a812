//! The axum peer: the movie routes as a careful engineer writes them with axum and tokio-postgres. It executes one
//! prepared statement per request, and has the service's schema, tokens, JSON, headers, timeouts, limits and metrics.
mod handlers;
mod statements;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use movies_api::telemetry::metrics::{self, Route};
use tokio::sync::Semaphore;
use tokio_postgres::NoTls;

use self::handlers::StatusError;
use crate::token::Key;

/// The state that handlers share.
#[derive(Clone)]
struct App(Arc<Shared>);

struct Shared {
    pool: Pool,
    key: Key,
    request_ids: AtomicU64,
}

pub struct Options {
    pub bind: SocketAddr,
    pub database_url: String,
    pub secret_key: String,
    pub db_pool_size: usize,
}

impl Options {
    /// Reads the environment variables of the service. Of 4, 8, 16 and 32 connections to the database, 8 gave the highest
    /// rates over reads, first pages and searches together.
    pub fn from_environment() -> anyhow::Result<Options> {
        Ok(Options {
            bind: std::env::var("BIND")?.parse()?,
            database_url: std::env::var("DATABASE_URL")?,
            secret_key: std::env::var("SECRET_KEY")?,
            db_pool_size: 8,
        })
    }
}

/// Serves until the process ends, on one thread per core.
pub fn serve(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut database: tokio_postgres::Config = options.database_url.parse()?;
        // As in the service: prepared statements are planned once, and every statement has a timeout.
        database.options("-c statement_timeout=5000 -c plan_cache_mode=force_generic_plan");
        let manager = Manager::from_config(
            database,
            NoTls,
            ManagerConfig {
                // A connection is taken from the pool without a statement that tests it.
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(options.db_pool_size)
            .wait_timeout(Some(Duration::from_secs(3)))
            .create_timeout(Some(Duration::from_secs(3)))
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .build()?;
        let app = App(Arc::new(Shared {
            pool,
            key: Key::new(&options.secret_key)?,
            request_ids: AtomicU64::new(1),
        }));
        let routes = Router::new()
            .route("/healthz", get(handlers::check_liveness))
            .route(
                "/api/v1/movies/",
                get(handlers::list_movies).post(handlers::create_movie),
            )
            .route(
                "/api/v1/movies/{id}/",
                get(handlers::read_movie)
                    .patch(handlers::update_movie)
                    .delete(handlers::delete_movie),
            )
            .route("/metrics", get(handlers::show_metrics))
            .layer(middleware::from_fn(limit_time))
            .with_state(app);
        let listener = tokio::net::TcpListener::bind(options.bind).await?;
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        // axum::serve would set no timeout for a request's headers.
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new());
        server.header_read_timeout(IDLE_TIMEOUT);
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await?;
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            stream.set_nodelay(true)?;
            let service = TowerToHyperService::new(routes.clone());
            let connection = server.serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                _ = connection.await;
                drop(permit);
            });
        }
    })
}

/// The service's limit on this bench, which opens far fewer.
const MAX_CONNECTIONS: usize = 1024;

/// The service's timeout between requests. Here it includes the time in which the headers arrive.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Gives a handler nine seconds and records the request in the service's metrics, as the service does.
async fn limit_time(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let path = request.extensions().get().map(MatchedPath::as_str);
    let route = match (method.as_str(), path.unwrap_or_default()) {
        ("GET", "/api/v1/movies/") => Route::ListMovies,
        ("POST", "/api/v1/movies/") => Route::CreateMovie,
        ("GET", "/api/v1/movies/{id}/") => Route::ReadMovie,
        ("PATCH", "/api/v1/movies/{id}/") => Route::UpdateMovie,
        ("DELETE", "/api/v1/movies/{id}/") => Route::DeleteMovie,
        _ => Route::Unknown,
    };
    let response = tokio::time::timeout(Duration::from_secs(9), next.run(request)).await;
    let response = response.unwrap_or_else(|_| StatusCode::SERVICE_UNAVAILABLE.into_response());
    let status = response.status().as_u16();
    metrics::count_request(route, method.as_str(), status, start.elapsed());
    response
}

/// The user whose access token the request carries.
struct CurrentUser(i64);

impl FromRequestParts<App> for CurrentUser {
    type Rejection = StatusError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<CurrentUser, StatusError> {
        let header = parts.headers.get(AUTHORIZATION);
        let token = header
            .and_then(|header| header.to_str().ok())
            .and_then(|header| header.strip_prefix("Bearer "))
            .ok_or(StatusError(StatusCode::UNAUTHORIZED))?;
        let user_id = app.0.key.verify(token.trim());
        user_id
            .map(CurrentUser)
            .ok_or(StatusError(StatusCode::UNAUTHORIZED))
    }
}

/// The scheme and the host of the request, for the links to other pages.
struct BaseUrl(String);

impl<S: Sync> FromRequestParts<S> for BaseUrl {
    type Rejection = StatusError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<BaseUrl, StatusError> {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        host.map(|host| BaseUrl(format!("http://{host}")))
            .ok_or(StatusError(StatusCode::BAD_REQUEST))
    }
}

/// The headers of every response besides `Content-Type` and `X-Request-Id`.
const COMMON_HEADERS: [(HeaderName, &str); 3] = [
    (HeaderName::from_static("x-content-type-options"), "nosniff"),
    (HeaderName::from_static("referrer-policy"), "same-origin"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
