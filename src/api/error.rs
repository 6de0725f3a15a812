//! Every refusal: one enum, one match to status, one match to body. The sentences are Django REST framework's.
use std::borrow::Cow;
use std::fmt;

use rouille::Response;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::answer_json;
use crate::auth::password;
use crate::auth::throttle::Throttled;
use crate::auth::token::Rejection;
use crate::db;

/// What is wrong with the fields of a body or a query, in the order in which they are declared; what concerns none of
/// them stands under `non_field_errors`.
#[derive(Debug, Default, PartialEq, Eq, ToSchema)]
#[schema(value_type = std::collections::HashMap<String, Vec<String>>)]
pub struct FieldErrors(Vec<(&'static str, Vec<Cow<'static, str>>)>);

impl FieldErrors {
    /// Adds what is wrong with one field, if anything is.
    pub fn add(&mut self, field: &'static str, messages: Vec<Cow<'static, str>>) {
        if !messages.is_empty() {
            self.0.push((field, messages));
        }
    }

    /// Puts the fields into the order in which they are declared.
    pub fn sort(&mut self, declared: &[&str]) {
        self.0
            .sort_by_key(|(field, _)| declared.iter().position(|name| name == field));
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The refusal that names all that is wrong; none if nothing is.
    pub fn into_result(self) -> Result<(), Error> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Error::Fields(self))
        }
    }
}

impl fmt::Display for FieldErrors {
    /// For a person at a terminal.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let told = self
            .0
            .iter()
            .map(|(field, messages)| format!("{field}: {}", messages.join(" ")));
        formatter.write_str(&told.collect::<Vec<_>>().join("; "))
    }
}

impl Serialize for FieldErrors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(field, messages)| (field, messages)))
    }
}

/// Every other refusal: a sentence for people, with some a word for programs, with a bad access token what is wrong
/// with it.
#[derive(Serialize, ToSchema)]
pub struct Refusal<'a> {
    detail: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    messages: Option<[AccessTokenMessage; 1]>,
}

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 400: fields that are wrong, each with its messages.
    #[error("{0}")]
    Fields(FieldErrors),
    /// 400: the body is no object.
    #[error("body refused: {0}")]
    NonField(Cow<'static, str>),
    /// 400: the body is no JSON.
    #[error("JSON parse error - {0}")]
    Syntax(Cow<'static, str>),
    /// 400: the Host header, or the one a trusted proxy forwarded, names no host.
    #[error("invalid host")]
    InvalidHost,
    /// 400: the query or the form has more fields than are read.
    #[error("more than {0} fields")]
    TooManyFields(usize),
    /// 401: no Bearer token was sent.
    #[error("no token")]
    NotAuthenticated,
    /// 401: the Authorization header holds not exactly one token.
    #[error("malformed Authorization header")]
    MalformedAuthorization,
    /// 401: the access token is refused.
    #[error("access token refused: {0:?}")]
    AccessToken(Rejection),
    /// 401: the refresh token is refused.
    #[error("refresh token refused: {0:?}")]
    RefreshToken(Rejection),
    /// 401: the access token names nobody.
    #[error("token without a user")]
    NoIdentification,
    /// 401: the user of the access token does not exist.
    #[error("user not found")]
    UserNotFound,
    /// 401: the user of the access token was deactivated.
    #[error("user inactive")]
    UserInactive,
    /// 401: the sign-in failed, whichever way.
    #[error("sign-in refused")]
    WrongCredentials,
    /// 401: the user of the refresh token may not sign in.
    #[error("no active account for the token")]
    NoActiveAccount,
    /// 403: the movie is another's.
    #[error("permission denied")]
    PermissionDenied,
    /// 404: there is nothing under this path.
    #[error("path not found")]
    NotFound,
    /// 404: no movie has this id.
    #[error("movie not found")]
    MovieNotFound,
    /// 404: the page is no number or past the end.
    #[error("invalid page")]
    InvalidPage,
    /// 405: with the method as sent and the methods that the path has.
    #[error("method not allowed")]
    MethodNotAllowed {
        /// As the client sent it.
        method: String,
        /// The value of the answer's Allow.
        allow: &'static str,
    },
    /// 415: with the Content-Type as sent.
    #[error("unsupported media type")]
    UnsupportedMediaType(String),
    /// 429: too many wrong passwords, or registrations; with how long to wait.
    #[error("throttled")]
    Throttled(Throttled),
    /// 503: too much to do, or the database is away.
    #[error("unavailable")]
    Unavailable,
    /// 500: a fault of ours.
    #[error("{0}")]
    Fault(String),
}

/// What a movie route makes of the store's answer.
impl From<db::Error> for Error {
    fn from(error: db::Error) -> Error {
        match error {
            db::Error::UnknownUser => Error::UserNotFound,
            db::Error::InactiveUser => Error::UserInactive,
            db::Error::MissingMovie => Error::MovieNotFound,
            db::Error::Unavailable(_)
            | db::Error::Unconfirmed(_)
            | db::Error::Blocked(_)
            | db::Error::RolledBack(_) => {
                log::debug!("answered with 503: {error}");
                Error::Unavailable
            }
            db::Error::Conflict(_) | db::Error::Schema(_) | db::Error::Fault { .. } => {
                Error::Fault(error.to_string())
            }
        }
    }
}

impl From<password::Error> for Error {
    fn from(error: password::Error) -> Error {
        match error {
            password::Error::Busy => Error::Unavailable,
            password::Error::Bcrypt(_) => Error::Fault(error.to_string()),
        }
    }
}

impl From<Throttled> for Error {
    fn from(throttled: Throttled) -> Error {
        Error::Throttled(throttled)
    }
}

/// In whole seconds, rounded up: 1 or more.
fn seconds_to_wait(Throttled { wait }: &Throttled) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl Error {
    /// The answer's status code.
    pub fn status(&self) -> u16 {
        match self {
            Error::Fields(_)
            | Error::NonField(_)
            | Error::Syntax(_)
            | Error::TooManyFields(_)
            | Error::InvalidHost => 400,
            Error::NotAuthenticated
            | Error::MalformedAuthorization
            | Error::AccessToken(_)
            | Error::RefreshToken(_)
            | Error::NoIdentification
            | Error::UserNotFound
            | Error::UserInactive
            | Error::WrongCredentials
            | Error::NoActiveAccount => 401,
            Error::PermissionDenied => 403,
            Error::NotFound | Error::MovieNotFound | Error::InvalidPage => 404,
            Error::MethodNotAllowed { .. } => 405,
            Error::UnsupportedMediaType(_) => 415,
            Error::Throttled(_) => 429,
            Error::Fault(_) => 500,
            Error::Unavailable => 503,
        }
    }

    /// The whole answer.
    pub fn into_response(self) -> Response {
        let status = self.status();
        let response = answer_json(status, &self.body());
        match self {
            Error::MethodNotAllowed { allow, .. } => response.with_unique_header("Allow", allow),
            Error::Throttled(throttled) => {
                let seconds = seconds_to_wait(&throttled).to_string();
                response.with_unique_header("Retry-After", seconds)
            }
            Error::Unavailable => response.with_unique_header("Retry-After", "1"),
            _ if status == 401 => {
                response.with_unique_header("WWW-Authenticate", "Bearer realm=\"api\"")
            }
            _ => response,
        }
    }
}

/// What a refusal says.
#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Fields(&'a FieldErrors),
    NonField { non_field_errors: [&'a str; 1] },
    Refusal(Refusal<'a>),
}

impl Error {
    fn body(&self) -> Body<'_> {
        let detail: Cow<str> = match self {
            Error::Fields(errors) => return Body::Fields(errors),
            Error::NonField(message) => {
                return Body::NonField {
                    non_field_errors: [message],
                };
            }
            Error::Syntax(reason) => format!("JSON parse error - {reason}").into(),
            Error::MethodNotAllowed { method, .. } => {
                format!("Method \"{method}\" not allowed.").into()
            }
            Error::UnsupportedMediaType(media_type) => {
                format!("Unsupported media type \"{media_type}\" in request.").into()
            }
            Error::InvalidHost => "The Host header names no host.".into(),
            Error::TooManyFields(limit) => format!("There are more than {limit} fields.").into(),
            Error::NotAuthenticated => "Authentication credentials were not provided.".into(),
            Error::MalformedAuthorization => {
                "Authorization header must contain two space-delimited values".into()
            }
            Error::AccessToken(_) => "Given token not valid for any token type".into(),
            Error::RefreshToken(rejection) => rejection.message().into(),
            Error::NoIdentification => "Token contained no recognizable user identification".into(),
            Error::UserNotFound => "User not found".into(),
            Error::UserInactive => "User is inactive".into(),
            Error::WrongCredentials => "No active account found with the given credentials".into(),
            Error::NoActiveAccount => "No active account found for the given token.".into(),
            Error::PermissionDenied => "You do not have permission to perform this action.".into(),
            Error::NotFound => "Not found.".into(),
            Error::MovieNotFound => "No Movie matches the given query.".into(),
            Error::InvalidPage => "Invalid page.".into(),
            Error::Throttled(throttled) => {
                let seconds = seconds_to_wait(throttled);
                let plural = if seconds == 1 { "" } else { "s" };
                format!("Request was throttled. Expected available in {seconds} second{plural}.")
                    .into()
            }
            Error::Unavailable => "Service temporarily unavailable, try again later.".into(),
            Error::Fault(_) => "Internal server error.".into(),
        };
        Body::Refusal(Refusal {
            detail,
            code: self.code(),
            messages: match self {
                Error::AccessToken(rejection) => Some([AccessTokenMessage::new(*rejection)]),
                _ => None,
            },
        })
    }

    /// SimpleJWT's word for programs, beside the sentence for people.
    fn code(&self) -> Option<&'static str> {
        match self {
            Error::MalformedAuthorization => Some("bad_authorization_header"),
            Error::AccessToken(_) | Error::RefreshToken(_) | Error::NoIdentification => {
                Some("token_not_valid")
            }
            Error::UserNotFound => Some("user_not_found"),
            Error::UserInactive => Some("user_inactive"),
            _ => None,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct AccessTokenMessage {
    token_class: &'static str,
    token_type: &'static str,
    message: &'static str,
}

impl AccessTokenMessage {
    fn new(rejection: Rejection) -> AccessTokenMessage {
        AccessTokenMessage {
            token_class: "AccessToken",
            token_type: "access",
            message: rejection.message(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds_after_which_it_is_over() {
        for (millis, seconds, told) in [
            (1, "1", "1 second."),
            (1000, "1", "1 second."),
            (1001, "2", "2 seconds."),
            (56_500, "57", "57 seconds."),
        ] {
            let wait = Duration::from_millis(millis);
            let answer = Error::from(Throttled { wait }).into_response();
            let retry_after = ("Retry-After".into(), seconds.into());
            assert!(answer.headers.contains(&retry_after), "{millis}");
            let mut body = String::new();
            let (mut reader, _) = answer.data.into_reader_and_size();
            reader.read_to_string(&mut body).unwrap();
            let sentence = format!("Request was throttled. Expected available in {told}");
            assert_eq!(body, format!(r#"{{"detail":"{sentence}"}}"#));
        }
    }
}
