//! The API described in OpenAPI 3.1, and a page to try it on. The answers' shapes are those of the types that handlers
//! answer with, and each refusal's status, body and headers are the very ones that the handlers' errors make.
use std::io::Read;
use std::sync::LazyLock;
use std::time::Duration;

use rouille::Response;
use serde_json::{Map, Value, json};
use utoipa::{OpenApi, ToSchema};

use super::auth::{AccessToken, TokenPair};
use super::error::{Error, FieldErrors};
use super::page::Envelope;
use super::registration::RegisteredUser;
use crate::store::movies::Movie;
use crate::throttle::Throttled;
use crate::token::Rejection;

#[derive(OpenApi)]
#[openapi(components(schemas(
    AccessToken,
    Credentials,
    Envelope,
    Movie,
    MovieChanges,
    MovieFields,
    RefreshToken,
    RegisteredUser,
    Registration,
    TokenPair
)))]
struct Components;

/// What a registration takes.
#[derive(ToSchema)]
#[allow(dead_code)] // its shape alone is used
struct Registration {
    #[schema(min_length = 1, max_length = 150, pattern = r"^[\w.@+-]+$")]
    username: String,
    #[schema(min_length = 8, format = Password, example = "Str0ng-Passw0rd!x")]
    password: String,
    #[schema(min_length = 8, format = Password, example = "Str0ng-Passw0rd!x")]
    password2: String,
    #[schema(min_length = 3, max_length = 254, format = Email)]
    email: String,
    #[schema(required = false, max_length = 150)]
    first_name: String,
    #[schema(required = false, max_length = 150)]
    last_name: String,
}

/// What a sign-in takes.
#[derive(ToSchema)]
#[allow(dead_code)]
struct Credentials {
    #[schema(min_length = 1, example = "ann")]
    username: String,
    #[schema(min_length = 1, format = Password, example = "Str0ng-Passw0rd!x")]
    password: String,
}

/// What a refresh takes.
#[derive(ToSchema)]
#[allow(dead_code)]
struct RefreshToken {
    #[schema(min_length = 1)]
    refresh: String,
}

/// A movie to be made, or all its fields anew. The pattern: no NUL, and a character that Python's str.strip leaves.
#[derive(ToSchema)]
#[allow(dead_code)]
struct MovieFields {
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\u0000]*[^\u0000\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\u0000]*$",
        example = "Heat"
    )]
    title: String,
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\u0000]*[^\u0000\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\u0000]*$",
        example = "Crime"
    )]
    genre: String,
    #[schema(example = 1995)]
    year: i32,
}

/// Those fields of a movie that are to change.
#[derive(ToSchema)]
#[allow(dead_code)]
struct MovieChanges {
    #[schema(
        required = false,
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\u0000]*[^\u0000\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\u0000]*$"
    )]
    title: String,
    #[schema(
        required = false,
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\u0000]*[^\u0000\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\u0000]*$"
    )]
    genre: String,
    #[schema(required = false)]
    year: i32,
}

/// One line of the table below.
struct Operation {
    /// The handler's name.
    id: &'static str,
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// The schema of the body it takes.
    takes: Option<&'static str>,
    status: &'static str,
    /// The schema of the body it answers with.
    gives: Option<&'static str>,
    refusals: Vec<(&'static str, Error)>,
}

static SCHEMA: LazyLock<String> = LazyLock::new(|| describe().to_string());

/// `GET schema/`: the description, the same for everybody.
pub fn show_schema() -> Response {
    Response::from_data("application/json", SCHEMA.as_str())
        .with_unique_header("Cache-Control", "no-cache")
}

/// `GET docs/`: the page.
pub fn show_page() -> Response {
    guard(
        "text/html; charset=utf-8",
        include_str!("docs/page.html"),
        "no-cache",
    )
}

/// `GET docs/page.js`.
pub fn show_script() -> Response {
    guard(
        "text/javascript; charset=utf-8",
        include_str!("docs/page.js"),
        "max-age=3600",
    )
}

/// `GET docs/page.css`.
pub fn show_style() -> Response {
    guard(
        "text/css; charset=utf-8",
        include_str!("docs/page.css"),
        "max-age=3600",
    )
}

/// Nothing but the service's own files runs, and nothing is asked of anybody else.
fn guard(media_type: &'static str, text: &'static str, caching: &'static str) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    Response::from_data(media_type, text)
        .with_unique_header("Content-Security-Policy", POLICY)
        .with_unique_header("Cache-Control", caching)
}

fn describe() -> Value {
    // Nothing in these types has keys that are no text, so this does not fail.
    let mut document = serde_json::to_value(Components::openapi()).unwrap_or_default();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(operation.method.to_owned(), describe_operation(operation));
        }
    }
    if let Some(document) = document.as_object_mut() {
        let version = env!("CARGO_PKG_VERSION");
        let info = json!({"title": "movies-api", "version": version, "license": {"name": "MIT", "identifier": "MIT"}});
        document.insert("info".to_owned(), info);
        document.insert("servers".to_owned(), json!([{"url": "/"}]));
        document.insert("paths".to_owned(), paths.into());
    }
    if let Some(components) = document
        .get_mut("components")
        .and_then(Value::as_object_mut)
    {
        let bearer = json!({"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}});
        components.insert("securitySchemes".to_owned(), bearer);
    }
    document
}

fn describe_operation(operation: Operation) -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let is_guarded = operation.path.starts_with("/api/v1/movies/");
    let mut responses: Map<String, Value> = Map::new();
    let mut success = json!({"description": operation.summary});
    if let (Some(gives), Some(success)) = (operation.gives, success.as_object_mut()) {
        let content = json!({"application/json": {"schema": reference(gives)}});
        success.insert("content".to_owned(), content);
    }
    responses.insert(operation.status.to_owned(), success);
    for (name, refusal) in operation.refusals {
        add_refusal(&mut responses, name, refusal);
    }
    let mut described =
        json!({"operationId": operation.id, "summary": operation.summary, "responses": responses});
    if let Some(described) = described.as_object_mut() {
        if let Some(takes) = operation.takes {
            let media = json!({"schema": reference(takes)});
            let content =
                json!({"application/json": media, "application/x-www-form-urlencoded": media});
            let body = json!({"required": operation.method != "patch", "content": content});
            described.insert("requestBody".to_owned(), body);
        }
        if is_guarded {
            described.insert("security".to_owned(), json!([{"bearer": []}]));
        }
        let parameters = if operation.path.ends_with("{id}/") {
            json!([{"name": "id", "in": "path", "required": true, "schema": {"type": "integer", "minimum": 0}}])
        } else if operation.id == "list_movies" {
            list_parameters()
        } else {
            json!([])
        };
        described.insert("parameters".to_owned(), parameters);
    }
    described
}

fn list_parameters() -> Value {
    let text = |name: &str, what: &str| json!({"name": name, "in": "query", "description": what, "schema": {"type": "string"}});
    let number = |name: &str, what: &str| json!({"name": name, "in": "query", "description": what, "schema": {"anyOf": [{"type": "number"}, {"type": "string", "maxLength": 0}]}});
    json!([
        text("page", "A number from 1, or last"),
        text("page_size", "1 to 100; 10 by default"),
        text("title", "Contained, whatever the case"),
        text("genre", "Contained, whatever the case"),
        text("creator__username", "Contained, whatever the case"),
        number("year", "Exactly"),
        number("year__gt", "Later than"),
        number("year__lt", "Earlier than"),
    ])
}

/// The refusal's own answer, as an example beside others of its status.
fn add_refusal(responses: &mut Map<String, Value>, name: &str, refusal: Error) {
    let description = refusal.to_string();
    let answer = refusal.into_response();
    let (mut reader, _) = answer.data.into_reader_and_size();
    let mut body = String::new();
    // The body is in memory: reading it does not fail.
    reader.read_to_string(&mut body).unwrap_or_default();
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let entry = responses
        .entry(answer.status_code.to_string())
        .or_insert_with(|| {
            let content =
                json!({"application/json": {"schema": {"type": "object"}, "examples": {}}});
            json!({"description": description, "headers": {}, "content": content})
        });
    if let Some(examples) = entry
        .pointer_mut("/content/application~1json/examples")
        .and_then(Value::as_object_mut)
    {
        examples.insert(name.to_owned(), json!({"value": body}));
    }
    if let Some(headers) = entry.pointer_mut("/headers").and_then(Value::as_object_mut) {
        for (header, value) in answer
            .headers
            .iter()
            .filter(|(header, _)| header != "Content-Type")
        {
            headers.insert(
                header.to_string(),
                json!({"schema": {"type": "string"}, "example": value}),
            );
        }
    }
}

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
        own.extend([
            ("no_object", Error::NonField(list.into())),
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

#[rustfmt::skip] // one line each
fn operations() -> Vec<Operation> {
    let fields = || vec![("fields", fields_missing(&["title", "genre", "year"]))];
    let year = || vec![("field", one_field("year", "A valid integer is required."))];
    let of_one = |mut own: Vec<(&'static str, Error)>| { own.extend([("missing", Error::MovieNotFound), ("foreign", Error::PermissionDenied)]); own };
    let refresh = || usual(POST, true, false, vec![
        ("fields", fields_missing(&["refresh"])), ("inactive", Error::NoActiveAccount),
        ("invalid", Error::RefreshToken(Rejection::Invalid)), ("expired", Error::RefreshToken(Rejection::Expired)),
    ]);
    let page = || vec![("page", Error::InvalidPage), ("filter", one_field("year", "Enter a number."))];
    let mut register = usual(POST, true, true, vec![("fields", fields_missing(&["username", "password", "password2", "email"]))]);
    register.push(throttled());
    register.retain(|(name, _)| *name != "no_token"); // a token that is sent has to be good, none is fine
    let credentials = vec![("fields", fields_missing(&["username", "password"])), ("credentials", Error::WrongCredentials), throttled()];
    vec![
        Operation { id: "register", method: "post", path: "/api/v1/auth/register/", summary: "Make an account", takes: Some("Registration"), status: "201", gives: Some("RegisteredUser"), refusals: register },
        Operation { id: "obtain_token", method: "post", path: "/api/v1/auth/token/", summary: "Sign in", takes: Some("Credentials"), status: "200", gives: Some("TokenPair"), refusals: usual(POST, true, false, credentials) },
        Operation { id: "refresh_token", method: "post", path: "/api/v1/auth/refresh/", summary: "Another access token", takes: Some("RefreshToken"), status: "200", gives: Some("AccessToken"), refusals: refresh() },
        Operation { id: "refresh_token_alias", method: "post", path: "/api/v1/auth/token/refresh/", summary: "Another access token, at its other address", takes: Some("RefreshToken"), status: "200", gives: Some("AccessToken"), refusals: refresh() },
        Operation { id: "list_movies", method: "get", path: MOVIES, summary: "List and search, newest first", takes: None, status: "200", gives: Some("Page"), refusals: usual(LIST, false, true, page()) },
        Operation { id: "create_movie", method: "post", path: MOVIES, summary: "Keep a movie", takes: Some("MovieFields"), status: "201", gives: Some("Movie"), refusals: usual(LIST, true, true, fields()) },
        Operation { id: "read_movie", method: "get", path: MOVIE, summary: "One movie", takes: None, status: "200", gives: Some("Movie"), refusals: usual(ONE, false, true, of_one(vec![])) },
        Operation { id: "replace_movie", method: "put", path: MOVIE, summary: "All its fields anew", takes: Some("MovieFields"), status: "200", gives: Some("Movie"), refusals: usual(ONE, true, true, of_one(fields())) },
        Operation { id: "update_movie", method: "patch", path: MOVIE, summary: "Some fields anew", takes: Some("MovieChanges"), status: "200", gives: Some("Movie"), refusals: usual(ONE, true, true, of_one(year())) },
        Operation { id: "delete_movie", method: "delete", path: MOVIE, summary: "Forget a movie", takes: None, status: "204", gives: None, refusals: usual(ONE, false, true, of_one(vec![])) },
    ]
}
