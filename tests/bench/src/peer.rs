//! The peer: the movie routes as a careful engineer writes them on axum and tokio-postgres, one prepared statement a
//! request, with the product's schema, tokens, JSON, headers, deadlines, bounds and metrics.
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

use self::handlers::Refusal;
use crate::token::Key;

/// What handlers share.
#[derive(Clone)]
struct App(Arc<Shared>);

struct Shared {
    pool: Pool,
    key: Key,
    request_ids: AtomicU64,
}

/// What the peer needs to know to serve.
pub struct Options {
    pub bind: SocketAddr,
    pub database_url: String,
    pub secret_key: String,
    pub db_pool_size: usize,
}

impl Options {
    /// From the variables that the product reads. Eight connections were, of 4, 8, 16 and 32, the best over reads, first
    /// pages and searches together.
    pub fn from_environment() -> anyhow::Result<Options> {
        Ok(Options {
            bind: std::env::var("BIND")?.parse()?,
            database_url: std::env::var("DATABASE_URL")?,
            secret_key: std::env::var("SECRET_KEY")?,
            db_pool_size: 8,
        })
    }
}

/// Serves until the process ends, on as many threads as there are cores.
pub fn serve(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut database: tokio_postgres::Config = options.database_url.parse()?;
        // As the product: what is prepared is planned once, and no statement runs for ever.
        database.options("-c statement_timeout=5000 -c plan_cache_mode=force_generic_plan");
        let manager = Manager::from_config(
            database,
            NoTls,
            ManagerConfig {
                // No question is asked when a connection is taken from the pool.
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
            .layer(middleware::from_fn(answer_in_time))
            .with_state(app);
        let listener = tokio::net::TcpListener::bind(options.bind).await?;
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        // Not axum::serve, which waits for a head for ever.
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new());
        server.header_read_timeout(IDLE_DEADLINE);
        loop {
            let place = Arc::clone(&places).acquire_owned().await?;
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            stream.set_nodelay(true)?;
            let service = TowerToHyperService::new(routes.clone());
            let connection = server.serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                _ = connection.await;
                drop(place);
            });
        }
    })
}

/// As many as the product's on this bench, which never comes near.
const MOST_CONNECTIONS: usize = 1024;

/// The product's for silence between requests; a head counts as part of it here.
const IDLE_DEADLINE: Duration = Duration::from_secs(75);

/// As the product's, a handler has nine seconds, and is counted, by the product's own room for that.
async fn answer_in_time(request: Request, next: Next) -> Response {
    let began = Instant::now();
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
    let answer = tokio::time::timeout(Duration::from_secs(9), next.run(request)).await;
    let answer = answer.unwrap_or_else(|_| StatusCode::SERVICE_UNAVAILABLE.into_response());
    let status = answer.status().as_u16();
    metrics::count_request(route, method.as_str(), status, began.elapsed());
    answer
}

/// The user whose access token the request carries.
struct Asker(i64);

impl FromRequestParts<App> for Asker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Asker, Refusal> {
        let header = parts.headers.get(AUTHORIZATION);
        let token = header
            .and_then(|header| header.to_str().ok())
            .and_then(|header| header.strip_prefix("Bearer "))
            .ok_or(Refusal(StatusCode::UNAUTHORIZED))?;
        let user_id = app.0.key.check(token.trim());
        user_id.map(Asker).ok_or(Refusal(StatusCode::UNAUTHORIZED))
    }
}

/// Scheme and host under which the client reached the peer.
struct Origin(String);

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Origin, Refusal> {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        host.map(|host| Origin(format!("http://{host}")))
            .ok_or(Refusal(StatusCode::BAD_REQUEST))
    }
}

/// The headers of every answer beside its type and the request's id.
const ALWAYS: [(HeaderName, &str); 3] = [
    (HeaderName::from_static("x-content-type-options"), "nosniff"),
    (HeaderName::from_static("referrer-policy"), "same-origin"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
