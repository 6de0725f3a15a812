//! The routes: one table that describes them, and the `router!` that sends requests to their handlers.
//!
//! To add an endpoint, add an entry to [`ROUTES`] and an arm to [`dispatch`]. The tests below prove that the two agree.
use std::borrow::Cow;

use rouille::{Request, Response, router};

use super::authentication::{Access, check_access};
use super::error::ApiError;
use super::movies::MovieId;
use super::openapi::{self, Operation, SwaggerFile};
use super::options::{Visibility, is_unreserved, is_valid_host};
use super::{HandlerResult, RequestContext, accounts, cors, health, movies, own_account, tokens};
use crate::db;
use crate::http::Class;
use crate::telemetry::metrics::Route;
use crate::telemetry::timings;

/// One method of one path.
pub struct RouteEntry {
    /// GET entries also serve HEAD. OPTIONS needs no entry.
    pub method: &'static str,
    /// With at most one parameter: `{id}`, a [`MovieId`], or `{file}`, a [`SwaggerFile`].
    pub path: &'static str,
    /// The handler's name in logs and metrics.
    pub route: Route,
    /// Also applies to requests for the path with another method, before the response is 405.
    pub access: Access,
    /// The class under which the HTTP server admits the request; of `Heavy` routes the cheap requests are `Ordinary`.
    pub class: Class,
    /// How the route is described in OpenAPI; `None` leaves it out.
    pub operation: Option<Operation>,
}

const ACCOUNT_PATH: &str = "/api/v1/auth/user/";

const MOVIE_PATH: &str = "/api/v1/movies/{id}/";

/// All routes, in the order in which the OpenAPI description lists them.
#[rustfmt::skip] // one route a paragraph
pub const ROUTES: &[RouteEntry] = &[
    RouteEntry { method: "POST", path: "/api/v1/auth/register/", route: Route::Register, access: Access::Optional, class: Class::Write,
        operation: Some(Operation { id: "register", summary: "Create an account", body: Some("Registration"), status: 201, response: Some("RegisteredUser") }) },
    RouteEntry { method: "POST", path: "/api/v1/auth/token/", route: Route::ObtainToken, access: Access::Public, class: Class::SignIn,
        operation: Some(Operation { id: "obtain_token", summary: "Sign in", body: Some("Credentials"), status: 200, response: Some("TokenPair") }) },
    RouteEntry { method: "POST", path: "/api/v1/auth/refresh/", route: Route::RefreshToken, access: Access::Public, class: Class::Ordinary,
        operation: Some(Operation { id: "refresh_token", summary: "Get a new access token", body: Some("RefreshToken"), status: 200, response: Some("AccessToken") }) },
    RouteEntry { method: "POST", path: "/api/v1/auth/token/refresh/", route: Route::RefreshToken, access: Access::Public, class: Class::Ordinary,
        operation: Some(Operation { id: "refresh_token_alias", summary: "Get a new access token (alias of /api/v1/auth/refresh/)", body: Some("RefreshToken"), status: 200, response: Some("AccessToken") }) },
    RouteEntry { method: "POST", path: "/api/v1/auth/token/verify/", route: Route::VerifyToken, access: Access::Public, class: Class::Ordinary,
        operation: Some(Operation { id: "verify_token", summary: "Check whether a token is valid", body: Some("Token"), status: 200, response: Some("Empty") }) },
    RouteEntry { method: "POST", path: "/api/v1/auth/token/blacklist/", route: Route::BlacklistToken, access: Access::Public, class: Class::Write,
        operation: Some(Operation { id: "blacklist_token", summary: "Sign out: refuse a refresh token from now on", body: Some("RefreshToken"), status: 200, response: Some("Empty") }) },
    RouteEntry { method: "GET", path: ACCOUNT_PATH, route: Route::ReadAccount, access: Access::Authenticated, class: Class::Ordinary,
        operation: Some(Operation { id: "read_account", summary: "Get your account", body: None, status: 200, response: Some("Account") }) },
    RouteEntry { method: "PUT", path: ACCOUNT_PATH, route: Route::ReplaceAccount, access: Access::Authenticated, class: Class::Write,
        operation: Some(Operation { id: "replace_account", summary: "Change your account; the address is required", body: Some("AccountFields"), status: 200, response: Some("Account") }) },
    RouteEntry { method: "PATCH", path: ACCOUNT_PATH, route: Route::UpdateAccount, access: Access::Authenticated, class: Class::Write,
        operation: Some(Operation { id: "update_account", summary: "Change some fields of your account", body: Some("AccountChanges"), status: 200, response: Some("Account") }) },
    RouteEntry { method: "DELETE", path: ACCOUNT_PATH, route: Route::DeleteAccount, access: Access::Authenticated, class: Class::SignIn,
        operation: Some(Operation { id: "delete_account", summary: "Delete your account and all your movies", body: Some("CurrentPassword"), status: 204, response: None }) },
    RouteEntry { method: "POST", path: "/api/v1/auth/password/", route: Route::ChangePassword, access: Access::Authenticated, class: Class::SignIn,
        operation: Some(Operation { id: "change_password", summary: "Change your password, and get new tokens", body: Some("PasswordChange"), status: 200, response: Some("TokenPair") }) },
    RouteEntry { method: "GET", path: movies::LIST_PATH, route: Route::ListMovies, access: Access::Authenticated, class: Class::Heavy,
        operation: Some(Operation { id: "list_movies", summary: "List and search movies, newest first", body: None, status: 200, response: Some("Page") }) },
    RouteEntry { method: "POST", path: movies::LIST_PATH, route: Route::CreateMovie, access: Access::Authenticated, class: Class::Write,
        operation: Some(Operation { id: "create_movie", summary: "Create a movie", body: Some("MovieFields"), status: 201, response: Some("Movie") }) },
    RouteEntry { method: "GET", path: MOVIE_PATH, route: Route::ReadMovie, access: Access::Authenticated, class: Class::Ordinary,
        operation: Some(Operation { id: "read_movie", summary: "Get a movie", body: None, status: 200, response: Some("Movie") }) },
    RouteEntry { method: "PUT", path: MOVIE_PATH, route: Route::ReplaceMovie, access: Access::Authenticated, class: Class::Write,
        operation: Some(Operation { id: "replace_movie", summary: "Replace all fields of a movie", body: Some("MovieFields"), status: 200, response: Some("Movie") }) },
    RouteEntry { method: "PATCH", path: MOVIE_PATH, route: Route::UpdateMovie, access: Access::Authenticated, class: Class::Write,
        operation: Some(Operation { id: "update_movie", summary: "Change some fields of a movie", body: Some("MovieChanges"), status: 200, response: Some("Movie") }) },
    RouteEntry { method: "DELETE", path: MOVIE_PATH, route: Route::DeleteMovie, access: Access::Authenticated, class: Class::Write,
        operation: Some(Operation { id: "delete_movie", summary: "Delete a movie", body: None, status: 204, response: None }) },
    RouteEntry { method: "GET", path: "/healthz", route: Route::CheckLiveness, access: Access::Public, class: Class::Immediate, operation: None },
    RouteEntry { method: "GET", path: "/readyz", route: Route::CheckReadiness, access: Access::Public, class: Class::Immediate, operation: None },
    RouteEntry { method: "GET", path: "/metrics", route: Route::ShowMetrics, access: Access::Public, class: Class::Immediate, operation: None },
    RouteEntry { method: "GET", path: "/api/v1/schema/", route: Route::ShowSchema, access: Access::Public, class: Class::Ordinary, operation: None },
    RouteEntry { method: "GET", path: openapi::PAGE_PATH, route: Route::ShowDocs, access: Access::Public, class: Class::Ordinary, operation: None },
    RouteEntry { method: "GET", path: "/api/v1/docs/{file}", route: Route::ShowDocs, access: Access::Public, class: Class::Ordinary, operation: None },
];

/// A handler with its path parameter, if it has one, already filled in. It blocks its worker until the response is ready.
type Handler<'a> = dyn Fn(&Request, &RequestContext) -> HandlerResult + 'a;

/// Calls `handle` with the route of this target and its handler; `None` if there is no such route.
#[rustfmt::skip] // one route a line
#[allow(clippy::question_mark)] // in the expansion of `router!`
fn dispatch<T>(target: &Target, handle: impl Fn(Route, &Handler) -> T) -> Option<T> {
    router!(target,
        (POST)   ["/api/v1/auth/register/"]             => Some(handle(Route::Register, &accounts::register)),
        (POST)   ["/api/v1/auth/token/"]                => Some(handle(Route::ObtainToken, &accounts::obtain_token)),
        (POST)   ["/api/v1/auth/refresh/"]              => Some(handle(Route::RefreshToken, &tokens::refresh_token)),
        (POST)   ["/api/v1/auth/token/refresh/"]        => Some(handle(Route::RefreshToken, &tokens::refresh_token)),
        (POST)   ["/api/v1/auth/token/verify/"]         => Some(handle(Route::VerifyToken, &tokens::verify_token)),
        (POST)   ["/api/v1/auth/token/blacklist/"]      => Some(handle(Route::BlacklistToken, &tokens::blacklist_token)),
        (GET)    ["/api/v1/auth/user/"]                 => Some(handle(Route::ReadAccount, &own_account::read_account)),
        (PUT)    ["/api/v1/auth/user/"]                 => Some(handle(Route::ReplaceAccount, &own_account::replace_account)),
        (PATCH)  ["/api/v1/auth/user/"]                 => Some(handle(Route::UpdateAccount, &own_account::update_account)),
        (DELETE) ["/api/v1/auth/user/"]                 => Some(handle(Route::DeleteAccount, &own_account::delete_account)),
        (POST)   ["/api/v1/auth/password/"]             => Some(handle(Route::ChangePassword, &own_account::change_password)),
        (GET)    ["/api/v1/movies/"]                    => Some(handle(Route::ListMovies, &movies::list_movies)),
        (POST)   ["/api/v1/movies/"]                    => Some(handle(Route::CreateMovie, &movies::create_movie)),
        (GET)    ["/api/v1/movies/{id}/", id: MovieId]  => Some(handle(Route::ReadMovie, &|_, context| movies::read_movie(context, id))),
        (PUT)    ["/api/v1/movies/{id}/", id: MovieId]  => Some(handle(Route::ReplaceMovie, &|request, context| movies::replace_movie(request, context, id))),
        (PATCH)  ["/api/v1/movies/{id}/", id: MovieId]  => Some(handle(Route::UpdateMovie, &|request, context| movies::update_movie(request, context, id))),
        (DELETE) ["/api/v1/movies/{id}/", id: MovieId]  => Some(handle(Route::DeleteMovie, &|_, context| movies::delete_movie(context, id))),
        (GET)    ["/healthz"]                           => Some(handle(Route::CheckLiveness, &health::check_liveness)),
        (GET)    ["/readyz"]                            => Some(handle(Route::CheckReadiness, &health::check_readiness)),
        (GET)    ["/metrics"]                           => Some(handle(Route::ShowMetrics, &health::show_metrics)),
        (GET)    ["/api/v1/schema/"]                    => Some(handle(Route::ShowSchema, &openapi::show_schema)),
        (GET)    ["/api/v1/docs/"]                      => Some(handle(Route::ShowDocs, &openapi::show_docs)),
        (GET)    ["/api/v1/docs/{file}", file: SwaggerFile] => Some(handle(Route::ShowDocs, &|request, _| openapi::show_docs_file(request, file))),
        _ => None
    )
}

/// Responds to a request: checks the Host header and the route's access, and calls the handler.
pub fn respond(request: &Request, context: &RequestContext) -> HandlerResult {
    let host = request.header("Host");
    if host.is_some_and(|host| !is_valid_host(host)) {
        return Err(ApiError::InvalidHost);
    }
    let target = Target::new(request.method(), path_of(request));
    let response = dispatch(&target, |route, handler| {
        timings::record_route(route);
        let requester = check_access(access_of(route), request, context)?;
        let context = RequestContext {
            requester,
            ..*context
        };
        handler(request, &context)
    });
    response.unwrap_or_else(|| respond_without_route(request, &target, context))
}

/// Entries of one route have the same access.
fn access_of(route: Route) -> Access {
    let entry = ROUTES.iter().find(|entry| entry.route == route);
    entry.map_or(Access::Authenticated, |entry| entry.access)
}

/// The class under which the HTTP server admits a request; `Ordinary` if it has no route. Called before the request is
/// queued, so it must not block.
pub fn classify(request: &Request, visibility: Visibility) -> Class {
    let target = Target::new(request.method(), path_of(request));
    let entry = ROUTES
        .iter()
        .find(|entry| entry.method == target.method && entry.has_path(&target.path));
    match entry.map_or(Class::Ordinary, |entry| entry.class) {
        Class::Heavy if !movies::is_heavy_list(request, visibility) => Class::Ordinary,
        class => class,
    }
}

/// The part of the URL before the query, as it was sent.
pub fn path_of(request: &Request) -> &str {
    request.raw_url().split('?').next().unwrap_or_default()
}

/// A request's method and path in the form in which routes are compared. It has the two methods that `router!` calls.
struct Target<'a> {
    method: &'a str,
    path: Cow<'a, str>,
}

impl<'a> Target<'a> {
    fn new(method: &'a str, path: &'a str) -> Target<'a> {
        Target {
            method: if method == "HEAD" { "GET" } else { method },
            path: decode_unreserved(path),
        }
    }

    fn method(&self) -> &str {
        self.method
    }

    fn raw_url(&self) -> &str {
        &self.path
    }
}

impl RouteEntry {
    /// Whether `path` is this route's path with some value for its parameter.
    fn has_path(&self, path: &str) -> bool {
        let Some((prefix, rest)) = self.path.split_once('{') else {
            return self.path == path;
        };
        let Some((parameter, suffix)) = rest.split_once('}') else {
            return false;
        };
        let value = path
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix(suffix));
        value.is_some_and(|value| match parameter {
            "id" => value.parse::<MovieId>().is_ok(),
            "file" => value.parse::<SwaggerFile>().is_ok(),
            _ => false,
        })
    }
}

/// Methods in the order in which Allow lists them; HEAD and OPTIONS follow.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The value of Allow, and the access, of a path; `None` if no route has it.
fn find_path(path: &str) -> Option<(String, Access)> {
    let entries = ROUTES.iter().filter(|entry| entry.has_path(path));
    let access = entries.clone().next()?.access;
    Some((list_methods(entries), access))
}

/// The value of Allow for these routes.
pub fn list_methods<'a>(entries: impl Iterator<Item = &'a RouteEntry> + Clone) -> String {
    let has_method = |method: &&str| entries.clone().any(|entry| entry.method == *method);
    let mut allow: Vec<&str> = METHODS.into_iter().filter(has_method).collect();
    if allow.contains(&"GET") {
        allow.push("HEAD");
    }
    allow.push("OPTIONS");
    allow.join(", ")
}

/// The response to a target without a route: the server as a whole, `/`, an unknown path, a path that lacks its trailing
/// slash, or a method that the path does not have.
fn respond_without_route(
    request: &Request,
    target: &Target,
    context: &RequestContext,
) -> HandlerResult {
    // `OPTIONS *` asks for the methods of the server (RFC 9110 9.3.7). The HTTP server rejects other methods of `*`.
    if target.path == "*" {
        return Ok(options_response(list_methods(ROUTES.iter())));
    }
    if target.method == "GET" && target.path == "/" {
        return openapi::redirect_browser(request);
    }
    let Some((allow, access)) = find_path(&target.path) else {
        return match find_path(&format!("{}/", target.path)) {
            // Browsers do not follow redirects of a preflight (Fetch 4.8), only those of the request after it.
            Some((allow, _)) if cors::is_preflight(request, &context.state.cors_origins) => {
                Ok(options_response(allow))
            }
            Some(_) => Ok(redirect_to_slash(request)),
            None => Err(ApiError::NotFound),
        };
    };
    if target.method == "OPTIONS" {
        return Ok(options_response(allow));
    }
    let requester = check_access(access, request, context)?;
    // No statement of a handler follows that would check it.
    if let (Access::Authenticated, Some(requester)) = (access, requester) {
        db::users::find_active(context.database(), requester)?;
    }
    Err(ApiError::MethodNotAllowed {
        method: request.method().to_owned(),
        allow,
    })
}

fn options_response(allow: String) -> Response {
    Response::empty_204().with_unique_header("Allow", allow)
}

/// Status 308 keeps the method and the body; clients change a POST to a GET on 301.
fn redirect_to_slash(request: &Request) -> Response {
    let url = request.raw_url();
    let location = match url.split_once('?') {
        Some((path, query)) => format!("{path}/?{query}"),
        None => format!("{url}/"),
    };
    Response::redirect_308(location)
}

/// Decodes percent-encoded unreserved characters, which are equivalent to the characters themselves (RFC 3986 6.2.2.2).
/// All other encoded characters stay: an encoded slash separates no segments.
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
        match (byte, piece.get(2..)) {
            (Some(byte), Some(rest)) if is_unreserved(byte) => {
                decoded.push(byte.into());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths that are those of a route, and paths that differ from one in a detail.
    fn sample_paths() -> Vec<String> {
        let mut paths = vec![
            "/".to_owned(),
            "*".to_owned(),
            "/api/v1/unknown/".to_owned(),
        ];
        let table = ROUTES.iter().map(|entry| entry.path);
        let router = router_arms().into_iter().map(|(_, path, _)| path);
        for path in table.chain(router) {
            for id in ["7", "0042", "%37", "+1", "-1", "1.0", "x", "%2531", "1/2"] {
                paths.push(path.replace("{id}", id));
            }
            for file in [
                "index.css",
                "swagger%2dui.css",
                "swagger-ui%2Ecss",
                "no.css",
                "",
            ] {
                paths.push(path.replace("{file}", file));
            }
        }
        let variants = paths.iter().flat_map(|path| {
            let upper_case = path.to_uppercase();
            [
                format!("{path}/"),
                format!("/{path}"),
                format!("{path}x"),
                format!("{path}%2F"),
                path.trim_end_matches('/').to_owned(),
                upper_case,
            ]
        });
        let variants: Vec<String> = variants.collect();
        paths.extend(variants);
        paths
    }

    #[test]
    fn router_dispatches_the_methods_and_paths_of_the_table_and_no_others() {
        let methods = METHODS.into_iter().chain([
            "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "Post", "BREW", "",
        ]);
        let mut dispatched = vec![false; ROUTES.len()];
        for method in methods {
            for path in sample_paths() {
                let target = Target::new(method, &path);
                let found = dispatch(&target, |route, _| route);
                let entry = ROUTES.iter().position(|entry| {
                    entry.method == target.method && entry.has_path(&target.path)
                });
                let expected = entry.map(|entry| ROUTES[entry].route);
                assert_eq!(found, expected, "{method} {path}");
                if let Some(entry) = entry {
                    dispatched[entry] = true;
                }
            }
        }
        let missed: Vec<_> = std::iter::zip(ROUTES, dispatched)
            .filter_map(|(entry, dispatched)| (!dispatched).then_some(entry.path))
            .collect();
        assert!(missed.is_empty(), "no sample path has {missed:?}");
    }

    /// Reads the arms of `router!` from this file: method, path, and the text after `=>`.
    fn router_arms() -> Vec<(&'static str, &'static str, &'static str)> {
        let lines = include_str!("routes.rs").lines().map(str::trim);
        let arms = lines.take_while(|line| *line != "#[cfg(test)]");
        arms.filter_map(|line| {
            let (method, rest) = line.strip_prefix('(')?.split_once(')')?;
            let (path, rest) = rest.trim_start().strip_prefix("[\"")?.split_once('"')?;
            Some((method, path, rest.split_once("=>")?.1))
        })
        .collect()
    }

    #[test]
    fn every_router_arm_is_a_table_entry_with_the_handler_of_that_name() {
        let arms = router_arms();
        assert_eq!(arms.len(), ROUTES.len());
        for (method, path, arm) in arms {
            let entries: Vec<_> = ROUTES
                .iter()
                .filter(|entry| (entry.method, entry.path) == (method, path))
                .collect();
            let [entry] = entries.as_slice() else {
                panic!("{method} {path} has {} table entries", entries.len());
            };
            assert!(arm.contains(&format!("Route::{:?},", entry.route)), "{arm}");
            assert!(arm.contains(&format!("::{}", entry.route.name())), "{arm}");
            if let Some(operation) = &entry.operation {
                assert!(operation.id.starts_with(entry.route.name()), "{path}");
            }
        }
    }

    #[test]
    fn entries_of_one_path_or_one_route_have_the_same_access() {
        for entry in ROUTES {
            for other in ROUTES {
                if entry.path == other.path || entry.route == other.route {
                    assert_eq!(entry.access, other.access, "{} {}", entry.path, other.path);
                }
            }
            assert_eq!(access_of(entry.route), entry.access);
        }
    }

    #[test]
    fn allow_lists_the_methods_of_a_path() {
        for (path, allow) in [
            ("/api/v1/auth/token/", "POST, OPTIONS"),
            ("/api/v1/movies/", "GET, POST, HEAD, OPTIONS"),
            (
                "/api/v1/movies/1/",
                "GET, PUT, PATCH, DELETE, HEAD, OPTIONS",
            ),
            ("/healthz", "GET, HEAD, OPTIONS"),
        ] {
            assert_eq!(find_path(path).unwrap().0, allow);
        }
        assert!(find_path("/").is_none());
        assert_eq!(
            list_methods(ROUTES.iter()),
            "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
        );
    }

    #[test]
    fn only_unreserved_characters_are_decoded() {
        assert_eq!(
            decode_unreserved("/mov%69es/%31%2f%2F%00%zz%4"),
            "/movies/1%2f%2F%00%zz%4"
        );
        assert_eq!(decode_unreserved("/a%2531%é"), "/a%2531%é");
    }

    fn class_of(method: &str, target: &str, visibility: Visibility) -> Class {
        let peer = ([127, 0, 0, 1], 1).into();
        let request = Request::fake_http_from(peer, method, target, vec![], vec![]);
        classify(&request, visibility)
    }

    #[test]
    fn every_list_is_heavy_except_the_first_page_of_ones_own() {
        let first_pages = ["", "?", "?page=1", "?page_size=50&page=1", "?title=", "?x"];
        let others = ["?page=2", "?page=last", "?page=1&title=a", "?y%65ar=1990"];
        for query in first_pages.into_iter().chain(others) {
            let target = format!("/api/v1/movies/{query}");
            let own = match others.contains(&query) {
                true => Class::Heavy,
                false => Class::Ordinary,
            };
            for method in ["GET", "HEAD"] {
                assert_eq!(class_of(method, &target, Visibility::Own), own, "{query}");
            }
            let shared = class_of("GET", &target, Visibility::Shared);
            assert_eq!(shared, Class::Heavy, "{query}");
        }
        let encoded = class_of("GET", "/api/v1/mov%69es/?page=2", Visibility::Own);
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
            ("POST", "/api/v1/auth/token/blacklist/", Class::Write),
            ("POST", "/api/v1/auth/password/", Class::SignIn),
            ("DELETE", "/api/v1/auth/user/", Class::SignIn),
            ("PATCH", "/api/v1/auth/user/", Class::Write),
            ("GET", "/api/v1/auth/token/?page=2", Class::Ordinary),
            ("GET", "/api/v1/movies/1/?title=a", Class::Ordinary),
            ("OPTIONS", "/api/v1/movies/", Class::Ordinary),
        ] {
            let found = class_of(method, target, Visibility::Shared);
            assert_eq!(found, class, "{method} {target}");
        }
    }
}
