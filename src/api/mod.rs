//! The table of routes, and what stands before a handler: host, bearer token, refusals. Knows HTTP's words, not sockets,
//! not SQL.
mod account;
mod auth;
mod bodies;
mod body;
mod cors;
mod docs;
mod error;
mod fields;
mod forwarded;
mod headers;
mod health;
mod middleware;
mod movies;
mod operations;
mod pagination;
mod query;
pub mod registration;
mod schema;

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ipnet::IpNet;
use rouille::{Request, Response, router};
use serde::Serialize;

pub use self::cors::{Origin, error_headers_of};
use self::error::Error;
pub use self::middleware::handle;
use self::movies::MovieId;
use crate::auth::password::Hasher;
use crate::auth::throttle::Throttle;
use crate::auth::token::{Keys, Subject};
use crate::db::{self, Database, Readiness, RequestDatabase};
use crate::http::{Class, Counters};
use crate::telemetry::metrics::Route;
use crate::telemetry::timings;

/// Whose movies a user may read; changing and deleting is always for the creator alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Visibility {
    /// One's own
    Own,
    /// Everybody's
    Shared,
}

/// What handlers borrow.
pub struct App {
    /// The database.
    pub store: Database,
    /// Whether the database answers.
    pub readiness: Arc<Readiness>,
    /// Signs and checks tokens.
    pub keys: Keys,
    /// Hashes and verifies passwords.
    pub hasher: Hasher,
    /// Whose movies a user may read.
    pub visibility: Visibility,
    /// Networks whose X-Forwarded-* headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where request ids go on from; any number.
    pub request_ids: AtomicU64,
    /// Wrong passwords for one account from one address.
    pub account_failures: Throttle,
    /// Wrong passwords from one address, whatever the account.
    pub address_failures: Throttle,
    /// Accounts made from one address.
    pub registrations: Throttle,
    /// Other sites whose scripts may read answers.
    pub cors_origins: Vec<Origin>,
    /// Whether answers say where their time went.
    pub server_timing: bool,
    /// What the server counts, once there is one.
    pub counters: OnceLock<Arc<Counters>>,
}

/// What a handler is given beside its request.
pub struct Context<'a> {
    /// What all handlers share.
    pub app: &'a App,
    /// Every wait for this request ends by then.
    pub deadline: Instant,
}

impl Context<'_> {
    /// The database, until the request's deadline.
    fn store(&self) -> RequestDatabase<'_> {
        self.app.store.with_deadline(self.deadline)
    }
}

/// The class that a request is admitted under; what none of the others takes is `Ordinary`, also if no route takes it.
pub fn classify(request: &Request, visibility: Visibility) -> Class {
    let path = request.raw_url().split('?').next().unwrap_or_default();
    let is_read = matches!(request.method(), "GET" | "HEAD");
    if is_read && matches!(path, "/healthz" | "/readyz" | "/metrics") {
        return Class::Immediate;
    }
    let path = decode_unreserved(path);
    match (request.method(), &*path) {
        ("GET" | "HEAD", movies::LIST_PATH) if movies::is_heavy_list(request, visibility) => {
            Class::Heavy
        }
        ("POST" | "PUT" | "PATCH" | "DELETE", path) if path.starts_with(movies::LIST_PATH) => {
            Class::Write
        }
        ("POST", "/api/v1/auth/register/") => Class::Write,
        ("POST", "/api/v1/auth/token/") => Class::SignIn,
        _ => Class::Ordinary,
    }
}

/// A request's method and path, as the table of routes compares them.
struct Target<'a> {
    method: &'a str,
    path: Cow<'a, str>,
}

/// The two questions that `router!` asks.
impl Target<'_> {
    fn method(&self) -> &str {
        self.method
    }

    fn raw_url(&self) -> &str {
        &self.path
    }
}

/// The table of routes.
fn route(request: &Request, path: &str, context: &Context) -> Result<Response, Error> {
    if request
        .header("Host")
        .is_some_and(|host| !forwarded::is_host(host))
    {
        return Err(Error::InvalidHost);
    }
    let target = Target {
        method: match request.method() {
            "HEAD" => "GET",
            method => method,
        },
        path: decode_unreserved(path),
    };
    let take = timings::record_route;
    let user_id = || authenticate(request, context);
    router!(target,
        (POST)   ["/api/v1/auth/register/"]               => { take(Route::Register); auth::register(request, context) },
        (POST)   ["/api/v1/auth/token/"]                  => { take(Route::ObtainToken); auth::obtain_token(request, context) },
        (POST)   ["/api/v1/auth/refresh/"]                => { take(Route::RefreshToken); auth::refresh_token(request, context) },
        (POST)   ["/api/v1/auth/token/refresh/"]          => { take(Route::RefreshToken); auth::refresh_token(request, context) },
        (GET)    ["/api/v1/movies/"]                      => { take(Route::ListMovies); movies::list_movies(request, context, user_id()?) },
        (POST)   ["/api/v1/movies/"]                      => { take(Route::CreateMovie); movies::create_movie(request, context, user_id()?) },
        (GET)    ["/api/v1/movies/{id}/", id: MovieId]    => { take(Route::ReadMovie); movies::read_movie(context, user_id()?, id) },
        (PUT)    ["/api/v1/movies/{id}/", id: MovieId]    => { take(Route::ReplaceMovie); movies::replace_movie(request, context, user_id()?, id) },
        (PATCH)  ["/api/v1/movies/{id}/", id: MovieId]    => { take(Route::UpdateMovie); movies::update_movie(request, context, user_id()?, id) },
        (DELETE) ["/api/v1/movies/{id}/", id: MovieId]    => { take(Route::DeleteMovie); movies::delete_movie(context, user_id()?, id) },
        (GET)    ["/healthz"]                             => { take(Route::CheckLiveness); Ok(health::check_liveness()) },
        (GET)    ["/readyz"]                              => { take(Route::CheckReadiness); Ok(health::check_readiness(context.app)) },
        (GET)    ["/metrics"]                             => { take(Route::ShowMetrics); health::show_metrics(context.app) },
        (GET)    ["/api/v1/schema/"]                      => { take(Route::ShowSchema); Ok(schema::show_schema()) },
        (GET)    ["/api/v1/docs/"]                        => { take(Route::ShowDocs); docs::show_page(request) },
        (GET)    ["/api/v1/docs/{file}", file: docs::File] => { take(Route::ShowDocs); docs::show_file(request, file) },
        (GET)    ["/"]                                    => docs::redirect_to_page(request),
        _ => refuse(request, &target, context)
    )
}

/// Who may use a path at all, judged before its methods.
enum Guard {
    /// Everybody; an Authorization header is not looked at.
    Nobody,
    /// Everybody, but a Bearer token that is sent has to be good.
    IfPresent,
    /// Active users.
    Always,
}

/// The methods and the guard of a path, whatever the method.
#[allow(clippy::question_mark)] // what `router!` expands to, not what stands here
fn find_resource(path: Cow<str>) -> Option<(&'static str, Guard)> {
    let target = Target {
        method: "ANY",
        path,
    };
    router!(target,
        (ANY) ["/api/v1/auth/register/"]            => Some(("POST, OPTIONS", Guard::IfPresent)),
        (ANY) ["/api/v1/auth/token/"]               => Some(("POST, OPTIONS", Guard::Nobody)),
        (ANY) ["/api/v1/auth/refresh/"]             => Some(("POST, OPTIONS", Guard::Nobody)),
        (ANY) ["/api/v1/auth/token/refresh/"]       => Some(("POST, OPTIONS", Guard::Nobody)),
        (ANY) ["/api/v1/movies/"]                   => Some(("GET, POST, HEAD, OPTIONS", Guard::Always)),
        (ANY) ["/api/v1/movies/{_id}/", _id: MovieId] => Some(("GET, PUT, PATCH, DELETE, HEAD, OPTIONS", Guard::Always)),
        (ANY) ["/healthz"]                          => Some(("GET, HEAD, OPTIONS", Guard::Nobody)),
        (ANY) ["/readyz"]                           => Some(("GET, HEAD, OPTIONS", Guard::Nobody)),
        (ANY) ["/metrics"]                          => Some(("GET, HEAD, OPTIONS", Guard::Nobody)),
        (ANY) ["/api/v1/schema/"]                   => Some(("GET, HEAD, OPTIONS", Guard::Nobody)),
        (ANY) ["/api/v1/docs/"]                     => Some(("GET, HEAD, OPTIONS", Guard::Nobody)),
        (ANY) ["/api/v1/docs/{_file}", _file: docs::File] => Some(("GET, HEAD, OPTIONS", Guard::Nobody)),
        _ => None
    )
}

/// What the target `*` allows: the methods that some path has (RFC 9110 9.3.7).
const SERVER_METHODS: &str = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS";

/// What the table of routes has no line for: the server as a whole, an unknown path, one that lacks only its slash, or a
/// method that the path does not have.
fn refuse(request: &Request, target: &Target, context: &Context) -> Result<Response, Error> {
    // The server lets no other method have this target.
    if target.path == "*" {
        return Ok(answer_options(SERVER_METHODS));
    }
    let Some((allow, guard)) = find_resource(Cow::from(target.raw_url())) else {
        let slashed = format!("{}/", target.path);
        return match find_resource(slashed.into()) {
            // Browsers follow no redirect of a preflight (Fetch 4.8), but that of the request which it asks about.
            Some((allow, _)) if cors::is_preflight(request, &context.app.cors_origins) => {
                Ok(answer_options(allow))
            }
            Some(_) => Ok(redirect_to_slash(request)),
            None => Err(Error::NotFound),
        };
    };
    if target.method == "OPTIONS" {
        return Ok(answer_options(allow));
    }
    match guard {
        Guard::Nobody => {}
        Guard::IfPresent => authenticate_if_present(request, context)?,
        Guard::Always => db::users::find_active(context.store(), authenticate(request, context)?)?,
    }
    Err(Error::MethodNotAllowed {
        method: request.method().to_owned(),
        allow,
    })
}

fn answer_options(allow: &'static str) -> Response {
    Response::empty_204().with_unique_header("Allow", allow)
}

/// 308 keeps the method and the body, where a 301 would turn a POST into a GET.
fn redirect_to_slash(request: &Request) -> Response {
    let raw = request.raw_url();
    let location = match raw.split_once('?') {
        Some((path, query)) => format!("{path}/?{query}"),
        None => format!("{raw}/"),
    };
    Response::redirect_308(location)
}

/// The path with those characters decoded that never need encoding (RFC 3986 6.2.2.2), so that both spellings find
/// the same route. All else stays as sent: an encoded slash separates nothing.
fn decode_unreserved(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return path.into();
    }
    let mut pieces = path.split('%');
    let mut decoded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let byte = piece
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte.map(char::from), piece.get(2..)) {
            (Some(character), Some(rest))
                if character.is_ascii_alphanumeric() || "-._~".contains(character) =>
            {
                decoded.push(character);
                decoded.push_str(rest);
            }
            _ => {
                decoded.push('%');
                decoded.push_str(piece);
            }
        }
    }
    decoded.into()
}

/// The id of the user whose access token the request carries. Whether they exist and are active is answered by the
/// statement that follows, in the same round trip.
fn authenticate(request: &Request, context: &Context) -> Result<i64, Error> {
    let token = find_bearer_token(request)?.ok_or(Error::NotAuthenticated)?;
    let subject = context.app.keys.identify(&token);
    match subject.map_err(Error::AccessToken)? {
        Subject::Absent => Err(Error::NoIdentification),
        Subject::Nobody | Subject::Unreadable => Err(Error::UserNotFound),
        Subject::User(id) => {
            timings::record_user(id);
            Ok(id)
        }
    }
}

/// Where no token is needed, one that is sent has to be good all the same.
fn authenticate_if_present(request: &Request, context: &Context) -> Result<(), Error> {
    if find_bearer_token(request)?.is_none() {
        return Ok(());
    }
    let user_id = authenticate(request, context)?;
    Ok(db::users::find_active(context.store(), user_id)?)
}

/// The token of an Authorization header of scheme Bearer; none under another scheme. Of two such headers the rule is that of
/// the framework behind a WSGI server, which joins them: two tokens are malformed, and a token after another scheme is none.
fn find_bearer_token(request: &Request) -> Result<Option<Cow<'_, str>>, Error> {
    Ok(match headers::find_joined(request, "Authorization") {
        None => None,
        Some(Cow::Borrowed(header)) => parse_bearer_token(header)?.map(Cow::Borrowed),
        Some(Cow::Owned(header)) => {
            parse_bearer_token(&header)?.map(|token| token.to_owned().into())
        }
    })
}

/// Any run of white space separates (SimpleJWT's JWTAuthentication, on Python's bytes.split).
fn parse_bearer_token(header: &str) -> Result<Option<&str>, Error> {
    let is_space = |character: char| character.is_ascii_whitespace() || character == '\u{b}';
    let mut words = header.split(is_space).filter(|word| !word.is_empty());
    if words.next() != Some("Bearer") {
        return Ok(None);
    }
    match (words.next(), words.next()) {
        (Some(token), None) => Ok(Some(token)),
        _ => Err(Error::MalformedAuthorization),
    }
}

/// An answer in JSON, with compact separators and non-ASCII as itself.
fn answer_json<T: Serialize>(status: u16, body: &T) -> Response {
    // Room for a page of usual size, so that it is not moved as it grows.
    let mut bytes = Vec::with_capacity(2048);
    match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => Response::from_data("application/json", bytes).with_status_code(status),
        // No type that is answered here can fail: none has a map with keys that are no text.
        Err(error) => {
            log::error!("an answer could not be written: {error}");
            Response::from_data("application/json", r#"{"detail":"Internal server error."}"#)
                .with_status_code(500)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_no_encoding_is_decoded() {
        assert_eq!(
            decode_unreserved("/mov%69es/%31%2f%2F%00%zz%4"),
            "/movies/1%2f%2F%00%zz%4"
        );
        assert_eq!(decode_unreserved("/a%2531%é"), "/a%2531%é");
    }
    fn classify_as(method: &str, target: &str, visibility: Visibility) -> Class {
        let peer = ([127, 0, 0, 1], 1).into();
        let request = Request::fake_http_from(peer, method, target, vec![], vec![]);
        classify(&request, visibility)
    }

    #[test]
    fn lists_are_heavy_but_the_first_page_of_ones_own() {
        let first_pages = ["", "?", "?page=1", "?page_size=50&page=1", "?title=", "?x"];
        let others = ["?page=2", "?page=last", "?page=1&title=a", "?y%65ar=1990"];
        for query in first_pages.into_iter().chain(others) {
            let target = format!("/api/v1/movies/{query}");
            let own = match others.contains(&query) {
                true => Class::Heavy,
                false => Class::Ordinary,
            };
            for method in ["GET", "HEAD"] {
                assert_eq!(
                    classify_as(method, &target, Visibility::Own),
                    own,
                    "{query}"
                );
            }
            let shared = classify_as("GET", &target, Visibility::Shared);
            assert_eq!(shared, Class::Heavy, "{query}");
        }
        let encoded = classify_as("GET", "/api/v1/mov%69es/?page=2", Visibility::Own);
        assert_eq!(encoded, Class::Heavy);
    }

    #[test]
    fn each_route_has_its_class() {
        for (method, target, class) in [
            ("GET", "/healthz", Class::Immediate),
            ("HEAD", "/readyz?now", Class::Immediate),
            ("GET", "/metrics", Class::Immediate),
            ("OPTIONS", "/healthz", Class::Ordinary),
            ("GET", "/healthz/", Class::Ordinary),
            ("POST", "/api/v1/movies/", Class::Write),
            ("POST", "/api/v1/movies/?page=2", Class::Write),
            ("PUT", "/api/v1/movies/1/", Class::Write),
            ("PATCH", "/api/v1/mov%69es/1/", Class::Write),
            ("DELETE", "/api/v1/movies/1/", Class::Write),
            ("POST", "/api/v1/auth/register/", Class::Write),
            ("POST", "/api/v1/auth/%74oken/", Class::SignIn),
            ("POST", "/api/v1/auth/token/refresh/", Class::Ordinary),
            ("POST", "/api/v1/auth/refresh/", Class::Ordinary),
            ("GET", "/api/v1/auth/token/?page=2", Class::Ordinary),
            ("GET", "/api/v1/movies/1/?title=a", Class::Ordinary),
            ("OPTIONS", "/api/v1/movies/", Class::Ordinary),
        ] {
            let found = classify_as(method, target, Visibility::Shared);
            assert_eq!(found, class, "{method} {target}");
        }
    }
}
