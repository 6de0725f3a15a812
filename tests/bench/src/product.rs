//! What the bench takes from the product's library beside what the peer counts with: the handler under rouille's own
//! server, and the two servers alone, with an answer that costs nothing. Where the library's face changes, this file
//! follows.
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::anyhow;
use clap::Parser;
use movies_api::api;
use movies_api::cli::open_app;
use movies_api::http::{Class, Limits, Server};
use movies_api::config::Settings;
use movies_api::db::MAX_BATCH;
use rouille::{Request, Response};

/// The product's handler under rouille's own server, with the product's settings from the environment.
pub fn serve_handler_by_rouille() -> anyhow::Result<()> {
    let settings = Settings::try_parse_from(["movies-api"])?;
    let address = settings.bind;
    let app = open_app(&settings, MAX_BATCH)?;
    serve_by_rouille(address, move |request| {
        let deadline = Instant::now() + Limits::default().request_timeout;
        api::handle(request, &app, deadline)
    })
}

/// The product with each request answered by a statement of its own.
pub fn serve_unbatched() -> anyhow::Result<()> {
    let settings = Settings::try_parse_from(["movies-api"])?;
    let address = settings.bind;
    let app = open_app(&settings, 1)?;
    let visibility = settings.movies_visibility;
    let server = Server::bind(
        address,
        Limits::default(),
        move |request| api::classify(request, visibility),
        move |request, deadline| api::handle(request, &app, deadline),
    )?;
    Ok(server.run()?)
}

/// The answer of fixed size under the product's server.
pub fn serve_alone() -> anyhow::Result<()> {
    let server = Server::bind(
        address()?,
        Limits::default(),
        |_| Class::Ordinary,
        |request, _| answer_alone(request),
    )?;
    Ok(server.run()?)
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
