//! What can be asked of the API, and every refusal of each: the table that the description is made from.
use std::time::Duration;

use super::error::{Error, FieldErrors};
use super::query::MAX_FIELDS;
use crate::auth::throttle::Throttled;
use crate::auth::token::Rejection;
use crate::http::HttpError;

/// One line of the table.
pub struct Operation {
    /// The handler's name.
    pub id: &'static str,
    /// In lower case.
    pub method: &'static str,
    /// With `{id}` for a movie's.
    pub path: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// The schema of the body it takes.
    pub takes: Option<&'static str>,
    /// Of its success.
    pub status: u16,
    /// The schema of the body it answers with.
    pub gives: Option<&'static str>,
    /// Each with a name of its own.
    pub refusals: Vec<(&'static str, Error)>,
}

impl Operation {
    /// Whether it needs a token.
    pub fn is_guarded(&self) -> bool {
        self.path.starts_with(MOVIES)
    }

    /// Whether it is asked of one movie.
    pub fn is_of_one(&self) -> bool {
        self.path == MOVIE
    }
}

/// What any request may meet before a handler sees it. One broken rule of framing stands for all.
pub const OF_THE_SERVER: [(&str, HttpError); 9] = [
    (
        "framing",
        HttpError::BadRequest("The Host header is missing."),
    ),
    ("slow", HttpError::RequestTimeout),
    ("large_body", HttpError::BodyTooLarge),
    ("long_target", HttpError::TargetTooLong),
    ("expectation", HttpError::ExpectationFailed),
    ("large_head", HttpError::HeadersTooLarge),
    ("crowded", HttpError::TooManyConnections),
    ("busy", HttpError::Overloaded),
    ("version", HttpError::VersionNotSupported),
];

fn fields_missing(names: &[&'static str]) -> Error {
    let mut errors = FieldErrors::default();
    for name in names {
        errors.add(name, vec!["This field is required.".into()]);
    }
    Error::Fields(errors)
}

fn one_field(name: &'static str, message: &'static str) -> Error {
    let mut errors = FieldErrors::default();
    errors.add(name, vec![message.into()]);
    Error::Fields(errors)
}

fn throttled() -> (&'static str, Error) {
    let wait = Duration::from_secs(57);
    ("throttled", Error::Throttled(Throttled { wait }))
}

/// What any request may meet, and what one with a body, or with a token, may meet besides.
fn usual(
    allow: &'static str,
    takes: bool,
    is_guarded: bool,
    mut own: Vec<(&'static str, Error)>,
) -> Vec<(&'static str, Error)> {
    let method = "BREW".to_owned();
    own.extend([
        ("host", Error::InvalidHost),
        ("method", Error::MethodNotAllowed { method, allow }),
        ("fault", Error::Fault("a fault of ours".to_owned())),
        ("unavailable", Error::Unavailable),
    ]);
    if takes {
        let list = "Invalid data. Expected a dictionary, but got list.";
        let reason = "expected value at line 1 column 1";
        own.extend([
            ("no_object", Error::NonField(list.into())),
            ("too_many_fields", Error::TooManyFields(MAX_FIELDS)),
            ("syntax", Error::Syntax(reason.into())),
            (
                "media_type",
                Error::UnsupportedMediaType("text/plain".to_owned()),
            ),
        ]);
    }
    if is_guarded {
        own.extend([
            ("no_token", Error::NotAuthenticated),
            ("malformed_header", Error::MalformedAuthorization),
            ("invalid_token", Error::AccessToken(Rejection::Invalid)),
            ("expired_token", Error::AccessToken(Rejection::Expired)),
            ("no_identification", Error::NoIdentification),
            ("user_not_found", Error::UserNotFound),
            ("user_inactive", Error::UserInactive),
        ]);
    }
    own
}

const POST: &str = "POST, OPTIONS";
const LIST: &str = "GET, POST, HEAD, OPTIONS";
const ONE: &str = "GET, PUT, PATCH, DELETE, HEAD, OPTIONS";
const MOVIES: &str = "/api/v1/movies/";
const MOVIE: &str = "/api/v1/movies/{id}/";

/// All of them, in the order in which a person needs them.
#[rustfmt::skip] // one line each
pub fn operations() -> Vec<Operation> {
    let fields = || vec![("fields", fields_missing(&["title", "genre", "year"]))];
    let year = || vec![("field", one_field("year", "A valid integer is required."))];
    let of_one = |mut own: Vec<(&'static str, Error)>| { own.extend([("missing", Error::MovieNotFound), ("foreign", Error::PermissionDenied)]); own };
    let refresh = || usual(POST, true, false, vec![
        ("fields", fields_missing(&["refresh"])), ("inactive", Error::NoActiveAccount),
        ("invalid", Error::RefreshToken(Rejection::Invalid)), ("expired", Error::RefreshToken(Rejection::Expired)),
    ]);
    let page = || vec![("page", Error::InvalidPage), ("too_many_fields", Error::TooManyFields(MAX_FIELDS)), ("filter", one_field("year", "Enter a number."))];
    let mut register = usual(POST, true, true, vec![("fields", fields_missing(&["username", "password", "password2", "email"]))]);
    register.push(throttled());
    register.retain(|(name, _)| *name != "no_token"); // a token that is sent has to be good, none is fine
    let credentials = vec![("fields", fields_missing(&["username", "password"])), ("credentials", Error::WrongCredentials), throttled()];
    vec![
        Operation { id: "register", method: "post", path: "/api/v1/auth/register/", summary: "Make an account", takes: Some("Registration"), status: 201, gives: Some("RegisteredUser"), refusals: register },
        Operation { id: "obtain_token", method: "post", path: "/api/v1/auth/token/", summary: "Sign in", takes: Some("Credentials"), status: 200, gives: Some("TokenPair"), refusals: usual(POST, true, false, credentials) },
        Operation { id: "refresh_token", method: "post", path: "/api/v1/auth/refresh/", summary: "Another access token", takes: Some("RefreshToken"), status: 200, gives: Some("AccessToken"), refusals: refresh() },
        Operation { id: "refresh_token_alias", method: "post", path: "/api/v1/auth/token/refresh/", summary: "Another access token, at its other address", takes: Some("RefreshToken"), status: 200, gives: Some("AccessToken"), refusals: refresh() },
        Operation { id: "list_movies", method: "get", path: MOVIES, summary: "List and search, newest first", takes: None, status: 200, gives: Some("Page"), refusals: usual(LIST, false, true, page()) },
        Operation { id: "create_movie", method: "post", path: MOVIES, summary: "Keep a movie", takes: Some("MovieFields"), status: 201, gives: Some("Movie"), refusals: usual(LIST, true, true, fields()) },
        Operation { id: "read_movie", method: "get", path: MOVIE, summary: "One movie", takes: None, status: 200, gives: Some("Movie"), refusals: usual(ONE, false, true, of_one(vec![])) },
        Operation { id: "replace_movie", method: "put", path: MOVIE, summary: "All its fields anew", takes: Some("MovieFields"), status: 200, gives: Some("Movie"), refusals: usual(ONE, true, true, of_one(fields())) },
        Operation { id: "update_movie", method: "patch", path: MOVIE, summary: "Some fields anew", takes: Some("MovieChanges"), status: 200, gives: Some("Movie"), refusals: usual(ONE, true, true, of_one(year())) },
        Operation { id: "delete_movie", method: "delete", path: MOVIE, summary: "Forget a movie", takes: None, status: 204, gives: None, refusals: usual(ONE, false, true, of_one(vec![])) },
    ]
}
