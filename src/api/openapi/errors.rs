//! The error responses of each operation. The description shows them as examples, rendered as handlers render them.
use std::time::Duration;

use super::Operation;
use crate::api::account_fields::INVALID_EMAIL;
use crate::api::accounts::TAKEN_EMAIL;
use crate::api::authentication::Access;
use crate::api::error::{ApiError, FieldErrors};
use crate::api::routes::{ROUTES, RouteEntry, list_methods};
use crate::api::validation::urlencoded::MAX_FIELDS;
use crate::auth::throttle::Throttled;
use crate::auth::token::TokenError;
use crate::http::HttpError;
use crate::telemetry::metrics::Route;

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
    let mut errors = errors_of_handler(entry.route);
    let same_path = ROUTES.iter().filter(|other| other.path == entry.path);
    let (method, allow) = ("BREW".to_owned(), list_methods(same_path));
    let internal_error = ApiError::Internal("internal server error".to_owned());
    errors.extend([
        ("invalid_host", ApiError::InvalidHost),
        (
            "method_not_allowed",
            ApiError::MethodNotAllowed { method, allow },
        ),
        ("internal_error", internal_error),
        ("unavailable", ApiError::Unavailable),
    ]);
    if operation.body.is_some() {
        let not_an_object = "Invalid data. Expected a dictionary, but got list.";
        let syntax_error = "expected value at line 1 column 1";
        let media_type = "text/plain".to_owned();
        errors.extend([
            invalid_field("not_an_object", "non_field_errors", not_an_object),
            ("too_many_fields", ApiError::TooManyFields(MAX_FIELDS)),
            ("syntax_error", ApiError::JsonSyntax(syntax_error.into())),
            (
                "unsupported_media_type",
                ApiError::UnsupportedMediaType(media_type),
            ),
        ]);
    }
    if entry.access == Access::Authenticated {
        errors.push(("no_token", ApiError::NotAuthenticated));
    }
    if entry.access != Access::Public {
        errors.extend([
            ("malformed_header", ApiError::MalformedAuthorization),
            ("invalid_token", ApiError::AccessToken(TokenError::Invalid)),
            ("expired_token", ApiError::AccessToken(TokenError::Expired)),
            ("no_identification", ApiError::NoIdentification),
            ("user_not_found", ApiError::UserNotFound),
            ("user_inactive", ApiError::UserInactive),
            ("password_changed", ApiError::PasswordChanged),
        ]);
    }
    errors
}

fn errors_of_handler(route: Route) -> Vec<Example> {
    let wait = Duration::from_secs(57);
    let throttled = ("throttled", ApiError::Throttled(Throttled { wait }));
    let taken_email = invalid_field("taken_email", "email", TAKEN_EMAIL);
    let wrong_password = invalid_field("wrong_password", "current_password", "Invalid password.");
    let invalid_token = ("invalid_token", ApiError::RefreshToken(TokenError::Invalid));
    let expired_token = ("expired_token", ApiError::RefreshToken(TokenError::Expired));
    let blacklisted_token = ("blacklisted_token", ApiError::TokenBlacklisted);
    let password_changed = ("password_changed", ApiError::PasswordChanged);
    let movie_fields = required_fields(&["title", "genre", "year"]);
    let movie_not_found = ("movie_not_found", ApiError::MovieNotFound);
    let permission_denied = ("permission_denied", ApiError::PermissionDenied);
    match route {
        Route::Register => {
            let required = ["username", "password", "password2", "email"];
            vec![required_fields(&required), throttled]
        }
        Route::ObtainToken => vec![
            required_fields(&["username", "password"]),
            ("wrong_credentials", ApiError::WrongCredentials),
            throttled,
        ],
        Route::RefreshToken | Route::BlacklistToken => vec![
            required_fields(&["refresh"]),
            ("no_active_account", ApiError::NoActiveAccount),
            invalid_token,
            expired_token,
            blacklisted_token,
            password_changed,
        ],
        Route::VerifyToken => vec![
            required_fields(&["token"]),
            invalid_token,
            expired_token,
            blacklisted_token,
            ("user_not_found", ApiError::UserNotFound),
            ("user_inactive", ApiError::UserInactive),
            password_changed,
        ],
        Route::ReplaceAccount => vec![required_fields(&["email"]), taken_email],
        Route::UpdateAccount => vec![
            invalid_field("invalid_field", "email", INVALID_EMAIL),
            taken_email,
        ],
        Route::DeleteAccount => vec![
            required_fields(&["current_password"]),
            wrong_password,
            throttled,
        ],
        Route::ChangePassword => {
            let required = ["current_password", "password", "password2"];
            vec![required_fields(&required), wrong_password, throttled]
        }
        Route::ListMovies => vec![
            ("invalid_page", ApiError::InvalidPage),
            ("too_many_fields", ApiError::TooManyFields(MAX_FIELDS)),
            invalid_field("invalid_filter", "year", "Enter a number."),
        ],
        Route::CreateMovie => vec![movie_fields],
        Route::ReadMovie | Route::DeleteMovie => vec![movie_not_found, permission_denied],
        Route::ReplaceMovie => vec![movie_fields, movie_not_found, permission_denied],
        Route::UpdateMovie => vec![
            invalid_field("invalid_field", "year", "A valid integer is required."),
            movie_not_found,
            permission_denied,
        ],
        _ => Vec::new(),
    }
}

fn required_fields(names: &[&'static str]) -> Example {
    let mut errors = FieldErrors::default();
    for name in names {
        errors.add(name, vec!["This field is required.".into()]);
    }
    ("missing_fields", ApiError::Fields(errors))
}

fn invalid_field(example: &'static str, field: &'static str, message: &'static str) -> Example {
    (example, ApiError::of_field(field, message))
}
