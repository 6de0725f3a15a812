//! All that the bench takes from the product's library: the handler under rouille's own server, and the two servers
//! alone, with an answer that costs nothing. Where the library's face changes, this file follows.
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::anyhow;
use clap::Parser;
use movies_api::api::{self, App};
use movies_api::password::{Cost, Hasher};
use movies_api::server::{Limits, Server};
use movies_api::settings::Settings;
use movies_api::store::{BATCH_SIZE, Options, Store};
use movies_api::throttle::Throttle;
use movies_api::token::Keys;
use rouille::{Request, Response};

/// The product's handler under rouille's own server, with the product's settings from the environment.
pub fn serve_handler_by_rouille() -> anyhow::Result<()> {
    let settings = Settings::try_parse_from(["movies-api"])?;
    let address = settings.bind;
    let app = open(settings, BATCH_SIZE)?;
    serve_by_rouille(address, move |request| api::handle(request, &app))
}

/// The product with each request answered by a statement of its own.
pub fn serve_unbatched() -> anyhow::Result<()> {
    let settings = Settings::try_parse_from(["movies-api"])?;
    let address = settings.bind;
    let app = open(settings, 1)?;
    let handler = move |request: &Request| api::handle(request, &app);
    Ok(Server::bind(address, Limits::default(), None, handler)?.run()?)
}

/// As the product's main builds it.
fn open(settings: Settings, batch_size: usize) -> anyhow::Result<App> {
    Ok(App {
        store: Store::open(Options {
            database: settings.database.database_url,
            pool_size: settings.db_pool_size,
            checkout_deadline: Duration::from_secs(3),
            statement_deadline: Duration::from_secs(5),
            start_deadline: Duration::from_secs(10),
            batch_size,
        })?,
        keys: Keys::new(
            &settings.tokens.secret_key,
            &settings.tokens.secret_key_fallbacks,
            settings.tokens.access_token_lifetime,
            settings.tokens.refresh_token_lifetime,
        ),
        hasher: Hasher::new(Cost {
            rounds_log2: settings.passwords.bcrypt_cost,
            waiting_limit: usize::try_from(settings.workers)?,
            waiting_deadline: Duration::from_secs(20),
        })?,
        visibility: settings.movies_visibility,
        trusted_proxies: settings.trusted_proxies,
        account_failures: Throttle::new(settings.login_failures, settings.login_wait),
        address_failures: Throttle::each_hour(settings.login_failures_per_hour),
        registrations: Throttle::each_hour(settings.registrations_per_hour),
        request_ids: AtomicU64::new(getrandom::u64()?),
        cors_origins: settings.cors_origins,
        server_timing: settings.server_timing,
        counters: OnceLock::new(),
    })
}

/// The answer of fixed size under the product's server.
pub fn serve_alone() -> anyhow::Result<()> {
    Ok(Server::bind(address()?, Limits::default(), None, answer_alone)?.run()?)
}

/// The answer of fixed size under rouille's own server.
pub fn serve_alone_by_rouille() -> anyhow::Result<()> {
    serve_by_rouille(address()?, answer_alone)
}

fn address() -> anyhow::Result<SocketAddr> {
    Ok(std::env::var("BIND")?.parse()?)
}

/// With as many threads as the product has, by default.
fn serve_by_rouille(
    address: SocketAddr,
    handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let server = rouille::Server::new(address, handler).map_err(|error| anyhow!(error))?;
    server.pool_size(Limits::default().workers).run();
    Ok(())
}

/// `GET /100` and `GET /2000` answer a JSON text of so many bytes.
fn answer_alone(request: &Request) -> Response {
    let bytes = request.raw_url().trim_start_matches('/').parse();
    let filling = bytes.unwrap_or(100usize).saturating_sub(2);
    Response::from_data("application/json", format!("\"{}\"", "x".repeat(filling)))
}
