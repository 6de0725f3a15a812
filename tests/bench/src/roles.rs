//! The servers that this program runs from the library of movies-api: its handlers under rouille's own server and
//! without batches, and a response of fixed size under either server.
//!
//! This file and the metrics in `axum_peer` are the only uses of the library.
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::anyhow;
use clap::Parser;
use movies_api::api;
use movies_api::cli::open_app;
use movies_api::config::Settings;
use movies_api::db::MAX_BATCH;
use movies_api::http::{Class, Limits, Server};
use rouille::{Request, Response};

/// The handlers of movies-api under rouille's own server, with its settings from the environment.
pub fn serve_handlers_under_rouille() -> anyhow::Result<()> {
    let settings = Settings::try_parse_from(["movies-api"])?;
    let address = settings.bind;
    let app = open_app(&settings, MAX_BATCH)?;
    serve_under_rouille(address, move |request| {
        let deadline = Instant::now() + Limits::default().request_timeout;
        api::handle(request, &app, deadline)
    })
}

/// movies-api with a statement of its own for each request.
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

/// The response of fixed size under the server of movies-api.
pub fn serve_fixed_response() -> anyhow::Result<()> {
    let server = Server::bind(
        address()?,
        Limits::default(),
        |_| Class::Ordinary,
        |request, _| fixed_response(request),
    )?;
    Ok(server.run()?)
}

/// The response of fixed size under rouille's own server.
pub fn serve_fixed_response_under_rouille() -> anyhow::Result<()> {
    serve_under_rouille(address()?, fixed_response)
}

fn address() -> anyhow::Result<SocketAddr> {
    Ok(std::env::var("BIND")?.parse()?)
}

/// Serves on as many threads as movies-api has by default.
fn serve_under_rouille(
    address: SocketAddr,
    handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let server = rouille::Server::new(address, handler).map_err(|error| anyhow!(error))?;
    server.pool_size(Limits::default().workers).run();
    Ok(())
}

/// The response to `GET /N`: a JSON string that takes N bytes with its quotes.
fn fixed_response(request: &Request) -> Response {
    let bytes = request.raw_url().trim_start_matches('/').parse();
    let length = bytes.unwrap_or(100usize).saturating_sub(2);
    Response::from_data("application/json", format!("\"{}\"", "x".repeat(length)))
}
