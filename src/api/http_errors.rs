//! Renders the errors of the HTTP server (malformed requests, timeouts, overload) as the API renders its own: in JSON, with
//! the headers of every response.
use rouille::Response;
use serde_json::json;

use super::cors;
use super::json_response;
use super::middleware::security_headers;
use super::options::Origin;
use crate::http::{HeaderLookup, HttpError};

/// Renders an error response to a request whose headers `lookup` finds. Scripts of the named origins may read it.
pub fn render_http_error(error: HttpError, lookup: &HeaderLookup, origins: &[Origin]) -> Response {
    let mut response = json_response(error.status(), &json!({ "detail": error.detail() }));
    response.headers.extend(security_headers());
    let cors_headers = cors::error_headers_of(lookup, origins);
    response.headers.extend(cors_headers);
    response
}
