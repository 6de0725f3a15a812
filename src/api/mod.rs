//! The HTTP API: routes, authentication, validation, handlers and error responses. Does not depend on sockets or SQL.
//!
//! A request passes through these modules in this order:
//!
//! 1. `middleware` gives it an id, and later adds headers to the response, logs it and counts it;
//! 2. `routes` finds its handler with `router!`;
//! 3. `authentication` checks its access token, as far as the entry of the route in `routes::ROUTES` demands it;
//! 4. the handler (in `accounts`, `movies`, `health` or `openapi`) validates its input with `validation`, calls one function
//!    of [`crate::db`] and returns a response, or an `error::ApiError` that the middleware renders.
mod account_fields;
mod accounts;
mod authentication;
mod cors;
mod error;
mod forwarded;
mod headers;
mod health;
mod middleware;
mod movies;
mod openapi;
pub mod options;
mod own_account;
mod pagination;
mod routes;
mod tokens;
mod validation;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ipnet::IpNet;
use rouille::Response;
use serde::Serialize;

pub use self::accounts::{RegisteredUser, register_account, validate_password};
use self::error::ApiError;
pub use self::middleware::{handle, render_http_error};
use self::options::{Origin, Visibility};
pub use self::routes::classify;
use crate::auth::password::Hasher;
use crate::auth::throttle::Throttle;
use crate::auth::token::TokenKeys;
use crate::db::users::{self, Requester};
use crate::db::{Database, Readiness, RequestDatabase};
use crate::http::Stats;

/// The state that all handlers share. It lives as long as the process, and workers read it without a lock of its own.
pub struct AppState {
    /// Runs statements.
    pub database: Database,
    /// The result of the last check of the database, at most two seconds old.
    pub readiness: Arc<Readiness>,
    /// Sign and verify tokens.
    pub token_keys: TokenKeys,
    /// Hashes and verifies passwords on a limited number of cores.
    pub hasher: Hasher,
    /// Whose movies a user may read.
    pub visibility: Visibility,
    /// Networks of proxies whose X-Forwarded-* headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// The number of the next request id; its initial value is random.
    pub next_request_id: AtomicU64,
    /// Failed sign-ins by client address and username.
    pub account_failures: Throttle,
    /// Failed sign-ins by client address.
    pub address_failures: Throttle,
    /// Registrations by client address.
    pub registrations: Throttle,
    /// Origins of other sites whose scripts may read responses.
    pub cors_origins: Vec<Origin>,
    /// Whether responses have a Server-Timing header.
    pub server_timing: bool,
    /// Counters of the HTTP server, set once the server is created; only /metrics reads them.
    pub server_stats: OnceLock<Arc<Stats>>,
}

/// What a handler gets beside the request itself.
struct RequestContext<'a> {
    state: &'a AppState,
    /// When every wait on behalf of this request ends.
    deadline: Instant,
    /// The user of the access token; set if the route's access is `Authenticated`.
    requester: Option<Requester>,
}

impl RequestContext<'_> {
    /// The database, whose statements end at the request's deadline.
    fn database(&self) -> RequestDatabase<'_> {
        self.state.database.with_deadline(self.deadline)
    }

    /// The user who makes the request.
    ///
    /// # Errors
    /// [`ApiError::NotAuthenticated`] if the route does not require authentication.
    fn requester(&self) -> Result<Requester, ApiError> {
        self.requester.ok_or(ApiError::NotAuthenticated)
    }

    /// Returns the result of a validation. If it is an error, no statement of the handler has checked the user, so this does:
    /// an inactive user gets 401 instead.
    fn check_user_before_error<T>(&self, result: Result<T, ApiError>) -> Result<T, ApiError> {
        if result.is_err() {
            users::find_active(self.database(), self.requester()?)?;
        }
        result
    }
}

/// What a handler returns. The middleware renders the error.
type HandlerResult = Result<Response, ApiError>;

/// A response with a JSON body, written with compact separators and without escaping non-ASCII characters, as Django REST
/// framework's JSONRenderer does.
fn json_response<T: Serialize>(status: u16, body: &T) -> Response {
    // Enough for a page of usual size without reallocation.
    let mut bytes = Vec::with_capacity(2048);
    match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => Response::from_data("application/json", bytes).with_status_code(status),
        // Serialization fails only for maps whose keys are not strings, and no response has one.
        Err(error) => {
            log::error!("cannot serialize a response: {error}");
            Response::from_data("application/json", r#"{"detail":"Internal server error."}"#)
                .with_status_code(500)
        }
    }
}
