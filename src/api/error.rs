//! Every error response of the handlers: one enum, with its status, headers and body. The texts are those of Django REST
//! framework and SimpleJWT.
use std::borrow::Cow;
use std::fmt;

use rouille::Response;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::json_response;
use crate::auth::password::HashError;
use crate::auth::throttle::Throttled;
use crate::auth::token::TokenError;
use crate::db;

/// A validation error of a field.
pub type Message = Cow<'static, str>;

/// The validation errors of a body or a query: messages by field, in the order in which the fields are declared. An error
/// that concerns no single field stands under `non_field_errors`.
#[derive(Debug, Default, PartialEq, Eq, ToSchema)]
#[schema(value_type = std::collections::HashMap<String, Vec<String>>)]
pub struct FieldErrors(Vec<(&'static str, Vec<Message>)>);

impl FieldErrors {
    /// Adds the messages of an invalid field.
    pub fn add(&mut self, field: &'static str, messages: Vec<Message>) {
        self.0.push((field, messages));
    }

    /// Sorts the fields into the order of `declared`.
    pub fn sort(&mut self, declared: &[&str]) {
        self.0
            .sort_by_key(|(field, _)| declared.iter().position(|name| name == field));
    }

    /// Whether all fields are valid so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok` if all fields are valid.
    ///
    /// # Errors
    /// [`ApiError::Fields`] with all messages.
    pub fn into_result(self) -> Result<(), ApiError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(ApiError::Fields(self))
        }
    }
}

/// One line for a terminal, which the commands print.
impl fmt::Display for FieldErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let fields = self.0.iter();
        let lines = fields.map(|(field, messages)| format!("{field}: {}", messages.join(" ")));
        formatter.write_str(&lines.collect::<Vec<_>>().join("; "))
    }
}

impl Serialize for FieldErrors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(field, messages)| (field, messages)))
    }
}

/// The body of every error response without validation errors: a sentence for people, for some errors a code for
/// programs, and for an invalid access token the reason.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    detail: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    messages: Option<[AccessTokenMessage; 1]>,
}

/// An error response of a handler. `Display` is for the log and for commands; clients get [`ApiError::into_response`].
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 400: invalid fields.
    #[error("{0}")]
    Fields(FieldErrors),
    /// 400: the body is not JSON.
    #[error("JSON parse error - {0}")]
    JsonSyntax(Message),
    /// 400: the Host header, or the X-Forwarded-Host of a trusted proxy, is not a valid host.
    #[error("invalid host")]
    InvalidHost,
    /// 400: the query or the form has more fields than this limit.
    #[error("more than {0} fields")]
    TooManyFields(usize),
    /// 401: the request has no bearer token.
    #[error("no token")]
    NotAuthenticated,
    /// 401: the Authorization header does not hold exactly one token.
    #[error("malformed Authorization header")]
    MalformedAuthorization,
    /// 401: the access token is invalid.
    #[error("invalid access token: {0:?}")]
    AccessToken(TokenError),
    /// 401: the refresh token is invalid.
    #[error("invalid refresh token: {0:?}")]
    RefreshToken(TokenError),
    /// 401: the access token has no claim `user_id`.
    #[error("token without a user")]
    NoIdentification,
    /// 401: the user of the access token does not exist.
    #[error("user not found")]
    UserNotFound,
    /// 401: the user of the access token is inactive.
    #[error("user inactive")]
    UserInactive,
    /// 401: the token was issued before the user's password was changed, or the user was signed out.
    #[error("password changed")]
    PasswordChanged,
    /// 401: the refresh token was signed out.
    #[error("token is blacklisted")]
    TokenBlacklisted,
    /// 401: wrong username or password, or an inactive user.
    #[error("wrong credentials")]
    WrongCredentials,
    /// 401: the user of the refresh token does not exist or is inactive.
    #[error("no active account for the token")]
    NoActiveAccount,
    /// 403: another user created the movie.
    #[error("permission denied")]
    PermissionDenied,
    /// 404: no route has this path.
    #[error("path not found")]
    NotFound,
    /// 404: no movie has this id.
    #[error("movie not found")]
    MovieNotFound,
    /// 404: the page is not a number from 1, or past the last page.
    #[error("invalid page")]
    InvalidPage,
    /// 405: the path does not have the method.
    #[error("method not allowed")]
    MethodNotAllowed {
        /// As the client sent it.
        method: String,
        /// The value of the response's Allow header.
        allow: String,
    },
    /// 415: with the Content-Type as it was sent.
    #[error("unsupported media type")]
    UnsupportedMediaType(String),
    /// 429: too many failed sign-ins or registrations.
    #[error("throttled")]
    Throttled(#[from] Throttled),
    /// 503: overload, or the database is not available.
    #[error("unavailable")]
    Unavailable,
    /// 500: an error that no request should cause. Only the log has the reason.
    #[error("{0}")]
    Internal(String),
}

/// The response to an error of the database, where a route has no other.
impl From<db::Error> for ApiError {
    fn from(error: db::Error) -> ApiError {
        match error {
            db::Error::UnknownUser => ApiError::UserNotFound,
            db::Error::InactiveUser => ApiError::UserInactive,
            db::Error::RevokedToken => ApiError::PasswordChanged,
            db::Error::BlacklistedToken => ApiError::TokenBlacklisted,
            db::Error::MissingMovie => ApiError::MovieNotFound,
            db::Error::Unavailable(_)
            | db::Error::Unconfirmed(_)
            | db::Error::Blocked(_)
            | db::Error::RolledBack(_) => {
                log::debug!("responding with 503: {error}");
                ApiError::Unavailable
            }
            db::Error::Conflict(_) | db::Error::Schema(_) | db::Error::Fault { .. } => {
                ApiError::Internal(error.to_string())
            }
        }
    }
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> ApiError {
        match error {
            HashError::Busy => ApiError::Unavailable,
            HashError::Bcrypt(_) => ApiError::Internal(error.to_string()),
        }
    }
}

impl From<jsonwebtoken::errors::Error> for ApiError {
    fn from(error: jsonwebtoken::errors::Error) -> ApiError {
        ApiError::Internal(format!("cannot sign a token: {error}"))
    }
}

/// The value of Retry-After: whole seconds, rounded up, at least 1.
fn retry_after_seconds(Throttled { wait }: &Throttled) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl ApiError {
    /// The error of a single field.
    pub fn of_field(field: &'static str, message: impl Into<Message>) -> ApiError {
        ApiError::Fields(FieldErrors(vec![(field, vec![message.into()])]))
    }

    /// The response with its status, headers and body.
    pub fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        let messages = match &self {
            ApiError::AccessToken(error) => Some([AccessTokenMessage {
                token_class: "AccessToken",
                token_type: "access",
                message: error.to_string(),
            }]),
            _ => None,
        };
        let response = match &self {
            ApiError::Fields(errors) => json_response(status, errors),
            _ => {
                let body = ErrorBody {
                    detail: self.detail(),
                    code,
                    messages,
                };
                json_response(status, &body)
            }
        };
        match self {
            ApiError::MethodNotAllowed { allow, .. } => response.with_unique_header("Allow", allow),
            ApiError::Throttled(throttled) => {
                let seconds = retry_after_seconds(&throttled).to_string();
                response.with_unique_header("Retry-After", seconds)
            }
            ApiError::Unavailable => response.with_unique_header("Retry-After", "1"),
            _ if status == 401 => {
                response.with_unique_header("WWW-Authenticate", "Bearer realm=\"api\"")
            }
            _ => response,
        }
    }

    /// The status, and SimpleJWT's error code.
    pub fn status_and_code(&self) -> (u16, Option<&'static str>) {
        match self {
            ApiError::Fields(_)
            | ApiError::JsonSyntax(_)
            | ApiError::TooManyFields(_)
            | ApiError::InvalidHost => (400, None),
            ApiError::NotAuthenticated | ApiError::WrongCredentials | ApiError::NoActiveAccount => {
                (401, None)
            }
            ApiError::MalformedAuthorization => (401, Some("bad_authorization_header")),
            ApiError::AccessToken(_)
            | ApiError::RefreshToken(_)
            | ApiError::NoIdentification
            | ApiError::TokenBlacklisted => (401, Some("token_not_valid")),
            ApiError::UserNotFound => (401, Some("user_not_found")),
            ApiError::UserInactive => (401, Some("user_inactive")),
            ApiError::PasswordChanged => (401, Some("password_changed")),
            ApiError::PermissionDenied => (403, None),
            ApiError::NotFound | ApiError::MovieNotFound | ApiError::InvalidPage => (404, None),
            ApiError::MethodNotAllowed { .. } => (405, None),
            ApiError::UnsupportedMediaType(_) => (415, None),
            ApiError::Throttled(_) => (429, None),
            ApiError::Internal(_) => (500, None),
            ApiError::Unavailable => (503, None),
        }
    }

    /// The sentence in the body of all errors but [`ApiError::Fields`], whose messages are the body.
    fn detail(&self) -> Cow<'static, str> {
        let constant = match self {
            ApiError::Fields(_) | ApiError::JsonSyntax(_) => return self.to_string().into(),
            ApiError::RefreshToken(error) => return error.to_string().into(),
            ApiError::MethodNotAllowed { method, .. } => {
                return format!("Method \"{method}\" not allowed.").into();
            }
            ApiError::UnsupportedMediaType(media_type) => {
                return format!("Unsupported media type \"{media_type}\" in request.").into();
            }
            ApiError::TooManyFields(limit) => {
                return format!("There are more than {limit} fields.").into();
            }
            ApiError::Throttled(throttled) => {
                let seconds = retry_after_seconds(throttled);
                let plural = if seconds == 1 { "" } else { "s" };
                let expected = format!("Expected available in {seconds} second{plural}.");
                return format!("Request was throttled. {expected}").into();
            }
            ApiError::InvalidHost => "The Host header names no host.",
            ApiError::NotAuthenticated => "Authentication credentials were not provided.",
            ApiError::MalformedAuthorization => {
                "Authorization header must contain two space-delimited values"
            }
            ApiError::AccessToken(_) => "Given token not valid for any token type",
            ApiError::NoIdentification => "Token contained no recognizable user identification",
            ApiError::UserNotFound => "User not found",
            ApiError::UserInactive => "User is inactive",
            ApiError::PasswordChanged => "The user's password has been changed.",
            ApiError::TokenBlacklisted => "Token is blacklisted",
            ApiError::WrongCredentials => "No active account found with the given credentials",
            ApiError::NoActiveAccount => "No active account found for the given token.",
            ApiError::PermissionDenied => "You do not have permission to perform this action.",
            ApiError::NotFound => "Not found.",
            ApiError::MovieNotFound => "No Movie matches the given query.",
            ApiError::InvalidPage => "Invalid page.",
            ApiError::Unavailable => "Service temporarily unavailable, try again later.",
            ApiError::Internal(_) => "Internal server error.",
        };
        constant.into()
    }
}

#[derive(Serialize, ToSchema)]
struct AccessTokenMessage {
    token_class: &'static str,
    token_type: &'static str,
    message: String,
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;

    #[test]
    fn throttled_response_rounds_the_wait_up_to_whole_seconds() {
        for (millis, seconds, text) in [
            (1, "1", "1 second."),
            (1000, "1", "1 second."),
            (1001, "2", "2 seconds."),
            (56_500, "57", "57 seconds."),
        ] {
            let wait = Duration::from_millis(millis);
            let response = ApiError::from(Throttled { wait }).into_response();
            let retry_after = ("Retry-After".into(), seconds.into());
            assert!(response.headers.contains(&retry_after), "{millis}");
            let mut body = String::new();
            let (mut reader, _) = response.data.into_reader_and_size();
            reader.read_to_string(&mut body).unwrap();
            let detail = format!("Request was throttled. Expected available in {text}");
            assert_eq!(body, format!(r#"{{"detail":"{detail}"}}"#));
        }
    }
}
