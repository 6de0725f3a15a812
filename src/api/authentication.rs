//! Authentication: from the Authorization header to the user who makes the request.
use rouille::Request;

use super::error::ApiError;
use super::{AppState, RequestContext, headers};
use crate::auth::token::Subject;
use crate::db::users::{self, Requester};
use crate::telemetry::timings;

/// Whom a route serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody. The Authorization header is ignored.
    Public,
    /// Everybody, but an access token that is sent must be valid and belong to an active user.
    Optional,
    /// Active users with a valid access token. The handler's first statement checks that the user is active.
    Authenticated,
}

/// The user of the request's access token; `None` for a public route and for an optional token that is missing.
///
/// For `Authenticated` routes this does not look at the database: the statement that follows checks in the same round trip
/// that the user exists and is active, and the token is not revoked.
///
/// # Errors
/// 401 for a token that is required and missing, or present and not good.
pub fn check_access(
    access: Access,
    request: &Request,
    context: &RequestContext,
) -> Result<Option<Requester>, ApiError> {
    if access == Access::Public {
        return Ok(None);
    }
    let requester = authenticate(request, context.state)?;
    match (access, requester) {
        (Access::Authenticated, None) => return Err(ApiError::NotAuthenticated),
        (Access::Optional, Some(requester)) => users::find_active(context.database(), requester)?,
        _ => {}
    }
    Ok(requester)
}

/// Repeated headers are joined as Django behind a WSGI server joins them, so two tokens are malformed, and a token after
/// another scheme is ignored.
fn authenticate(request: &Request, state: &AppState) -> Result<Option<Requester>, ApiError> {
    let header = headers::joined(request, "Authorization").unwrap_or_default();
    let Some(token) = parse_bearer_token(&header)? else {
        return Ok(None);
    };
    let verified = state.token_keys.verify_access(token);
    let (subject, token_generation) = verified.map_err(ApiError::AccessToken)?;
    match subject {
        Subject::Missing => Err(ApiError::NoIdentification),
        Subject::Falsy | Subject::Invalid => Err(ApiError::UserNotFound),
        Subject::User(user_id) => {
            timings::record_user(user_id);
            Ok(Some(Requester {
                user_id,
                token_generation,
            }))
        }
    }
}

/// The token of an Authorization header of scheme Bearer; `None` under another scheme. Any run of white space separates, as
/// for SimpleJWT's JWTAuthentication, which uses Python's `bytes.split`.
fn parse_bearer_token(header: &str) -> Result<Option<&str>, ApiError> {
    let is_space = |character: char| character.is_ascii_whitespace() || character == '\u{b}';
    let mut words = header.split(is_space).filter(|word| !word.is_empty());
    if words.next() != Some("Bearer") {
        return Ok(None);
    }
    match (words.next(), words.next()) {
        (Some(token), None) => Ok(Some(token)),
        _ => Err(ApiError::MalformedAuthorization),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_header_holds_exactly_one_token() {
        assert_eq!(parse_bearer_token(" Bearer\t\u{b} a ").unwrap(), Some("a"));
        for other_scheme in ["", "bearer a", "Basic a", "Bearera"] {
            assert_eq!(parse_bearer_token(other_scheme).unwrap(), None);
        }
        for malformed in ["Bearer", "Bearer a b", "Bearer a,Bearer b"] {
            assert!(parse_bearer_token(malformed).is_err(), "{malformed}");
        }
    }
}
