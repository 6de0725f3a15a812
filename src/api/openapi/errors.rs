//! The error responses of each operation. The description shows them as examples, rendered as handlers render them.
use std::time::Duration;

use super::Operation;
use crate::api::authentication::Access;
use crate::api::error::{ApiError, FieldErrors};
use crate::api::routes::{ROUTES, RouteEntry, list_methods};
use crate::api::validation::urlencoded::MAX_FIELDS;
use crate::auth::throttle::Throttled;
use crate::auth::token::TokenError;
use crate::http::HttpError;

/// An example of an error response, with a name that is unique in its operation.
pub type Example = (&'static str, ApiError);

/// The error responses of the HTTP server, which any request may get before its handler runs. One malformed request stands
/// for all.
pub const SERVER_ERRORS: [(&str, HttpError); 9] = [
    (
        "malformed",
        HttpError::BadRequest("The Host header is missing."),
    ),
    ("request_timeout", HttpError::RequestTimeout),
    ("body_too_large", HttpError::BodyTooLarge),
    ("target_too_long", HttpError::TargetTooLong),
    ("unsupported_expectation", HttpError::ExpectationFailed),
    ("headers_too_large", HttpError::HeadersTooLarge),
    ("too_many_connections", HttpError::TooManyConnections),
    ("overloaded", HttpError::Overloaded),
    ("unsupported_version", HttpError::VersionNotSupported),
];

/// The errors of an operation's own handler and those that follow from its body and access.
pub fn errors_of(entry: &RouteEntry, operation: &Operation) -> Vec<Example> {
    let mut errors = (operation.errors)();
    let entries = || ROUTES.iter().filter(|other| other.path == entry.path);
    let (method, allow) = ("BREW".to_owned(), list_methods(entries));
    errors.extend([
        ("invalid_host", ApiError::InvalidHost),
        (
            "method_not_allowed",
            ApiError::MethodNotAllowed { method, allow },
        ),
        (
            "internal_error",
            ApiError::Internal("internal server error".to_owned()),
        ),
        ("unavailable", ApiError::Unavailable),
    ]);
    if operation.body.is_some() {
        errors.extend(body_errors());
    }
    if entry.access == Access::Authenticated {
        errors.push(("no_token", ApiError::NotAuthenticated));
    }
    if entry.access != Access::Public {
        errors.extend(token_errors());
    }
    errors
}

fn body_errors() -> [Example; 4] {
    let not_an_object = "Invalid data. Expected a dictionary, but got list.";
    let syntax_error = "expected value at line 1 column 1";
    [
        ("not_an_object", ApiError::NonField(not_an_object.into())),
        ("too_many_fields", ApiError::TooManyFields(MAX_FIELDS)),
        ("syntax_error", ApiError::JsonSyntax(syntax_error.into())),
        (
            "unsupported_media_type",
            ApiError::UnsupportedMediaType("text/plain".to_owned()),
        ),
    ]
}

fn token_errors() -> [Example; 7] {
    [
        ("malformed_header", ApiError::MalformedAuthorization),
        ("invalid_token", ApiError::AccessToken(TokenError::Invalid)),
        ("expired_token", ApiError::AccessToken(TokenError::Expired)),
        ("no_identification", ApiError::NoIdentification),
        ("user_not_found", ApiError::UserNotFound),
        ("user_inactive", ApiError::UserInactive),
        ("password_changed", ApiError::PasswordChanged),
    ]
}

pub fn of_register() -> Vec<Example> {
    let required = ["username", "password", "password2", "email"];
    vec![required_fields(&required), throttled()]
}

pub fn of_obtain_token() -> Vec<Example> {
    vec![
        required_fields(&["username", "password"]),
        ("wrong_credentials", ApiError::WrongCredentials),
        throttled(),
    ]
}

pub fn of_refresh_token() -> Vec<Example> {
    vec![
        required_fields(&["refresh"]),
        ("no_active_account", ApiError::NoActiveAccount),
        ("invalid_token", ApiError::RefreshToken(TokenError::Invalid)),
        ("expired_token", ApiError::RefreshToken(TokenError::Expired)),
        ("blacklisted_token", ApiError::TokenBlacklisted),
        ("password_changed", ApiError::PasswordChanged),
    ]
}

pub fn of_verify_token() -> Vec<Example> {
    vec![
        required_fields(&["token"]),
        ("invalid_token", ApiError::RefreshToken(TokenError::Invalid)),
        ("expired_token", ApiError::RefreshToken(TokenError::Expired)),
        ("blacklisted_token", ApiError::TokenBlacklisted),
        ("user_not_found", ApiError::UserNotFound),
        ("user_inactive", ApiError::UserInactive),
        ("password_changed", ApiError::PasswordChanged),
    ]
}

pub fn of_replace_account() -> Vec<Example> {
    vec![required_fields(&["email"]), taken_email()]
}

pub fn of_update_account() -> Vec<Example> {
    let message = "Enter a valid email address.";
    vec![
        invalid_field("invalid_field", "email", message),
        taken_email(),
    ]
}

pub fn of_delete_account() -> Vec<Example> {
    vec![
        required_fields(&["current_password"]),
        wrong_password(),
        throttled(),
    ]
}

pub fn of_change_password() -> Vec<Example> {
    vec![
        required_fields(&["current_password", "password", "password2"]),
        wrong_password(),
        throttled(),
    ]
}

fn taken_email() -> Example {
    invalid_field("taken_email", "email", "This field must be unique.")
}

fn wrong_password() -> Example {
    invalid_field("wrong_password", "current_password", "Invalid password.")
}

pub fn of_list_movies() -> Vec<Example> {
    vec![
        ("invalid_page", ApiError::InvalidPage),
        ("too_many_fields", ApiError::TooManyFields(MAX_FIELDS)),
        invalid_field("invalid_filter", "year", "Enter a number."),
    ]
}

pub fn of_create_movie() -> Vec<Example> {
    vec![required_fields(&["title", "genre", "year"])]
}

pub fn of_one_movie() -> Vec<Example> {
    vec![
        ("movie_not_found", ApiError::MovieNotFound),
        ("permission_denied", ApiError::PermissionDenied),
    ]
}

pub fn of_replace_movie() -> Vec<Example> {
    [of_create_movie(), of_one_movie()]
        .into_iter()
        .flatten()
        .collect()
}

pub fn of_update_movie() -> Vec<Example> {
    let mut errors = of_one_movie();
    let message = "A valid integer is required.";
    errors.insert(0, invalid_field("invalid_field", "year", message));
    errors
}

fn required_fields(names: &[&'static str]) -> Example {
    let mut errors = FieldErrors::default();
    for name in names {
        errors.add(name, vec!["This field is required.".into()]);
    }
    ("missing_fields", ApiError::Fields(errors))
}

fn invalid_field(example: &'static str, field: &'static str, message: &'static str) -> Example {
    let mut errors = FieldErrors::default();
    errors.add(field, vec![message.into()]);
    (example, ApiError::Fields(errors))
}

fn throttled() -> Example {
    let wait = Duration::from_secs(57);
    ("throttled", ApiError::Throttled(Throttled { wait }))
}
