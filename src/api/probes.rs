//! What operators' probes ask: whether the process answers, whether the database does.
use rouille::Response;
use serde::Serialize;

use super::error::Error;
use super::{App, answer_json};

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// `GET /healthz`: the process answers, whatever the database does.
pub fn check_liveness() -> Response {
    answer_json(200, &Health { status: "ok" })
}

/// `GET /readyz`: requests can be served, since the database answers; 503 while it does not.
pub fn check_readiness(app: &App) -> Result<Response, Error> {
    app.store.check_ready()?;
    Ok(answer_json(200, &Health { status: "ok" }))
}
