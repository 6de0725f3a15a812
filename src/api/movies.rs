//! Movies: list, create, read, replace, update, delete.
//!
//! A valid request takes one statement, which also checks the user. An error in the input is reported only to users who
//! would be allowed the request otherwise, which takes a statement of its own.
use std::str::FromStr;

use rouille::{Request, Response};

use super::error::ApiError;
use super::forwarded::base_url;
use super::options::Visibility;
use super::pagination::{Page, parse_page};
use super::validation::body::parse_body;
use super::validation::fields::{CharField, Serializer};
use super::validation::filters::{QueryParameters, parse_filter};
use super::{HandlerResult, RequestContext, json_response};
use crate::db::movies::{self, Changes, Filter, Found, NewMovie, PageRequest, Scope};

pub const TITLE: CharField = CharField {
    max_length: Some(100),
    ..CharField::new("title")
};

pub const GENRE: CharField = CharField {
    name: "genre",
    ..TITLE
};

pub const YEAR: &str = "year";

/// The path of the list, which the links of pages also use.
pub const LIST_PATH: &str = "/api/v1/movies/";

/// A movie's id in a path. It is written in ASCII digits only, whereas `i64::from_str` also accepts a sign. A number past 64
/// bits becomes -1, the id of no movie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovieId(i64);

impl FromStr for MovieId {
    type Err = ();

    fn from_str(segment: &str) -> Result<MovieId, ()> {
        if segment.is_empty() || !segment.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(());
        }
        Ok(MovieId(segment.parse().unwrap_or(-1)))
    }
}

/// Whether `GET movies/` may run an expensive statement: any list except the first page of the user's own movies.
pub fn is_heavy_list(request: &Request, visibility: Visibility) -> bool {
    // The query is not decoded: an encoded one may count as heavy without need, which changes no response.
    let is_first_page = |pair: &str| {
        matches!(
            pair.split_once('='),
            None | Some((_, "") | ("page", "1") | ("page_size", _))
        )
    };
    visibility == Visibility::Shared || !request.raw_query_string().split('&').all(is_first_page)
}

/// `GET movies/`: one page of movies, newest first.
///
/// # Errors
/// 400 for invalid filters, 404 for an invalid page.
pub fn list_movies(request: &Request, context: &RequestContext) -> HandlerResult {
    let requester = context.requester()?;
    let parameters = QueryParameters::parse(request.raw_query_string());
    let parsed = parse_list_request(request, context, &parameters);
    let (base_url, filter, page) = context.check_user_before_error(parsed)?;
    let scope = match context.state.visibility {
        Visibility::Own => Scope::Own,
        Visibility::Shared => Scope::All,
    };
    let found = match filter {
        None => movies::list(context.database(), requester, scope, page)?,
        Some(filter) => movies::search(context.database(), requester, scope, page, &filter)?,
    };
    let list_url = format!("{base_url}{LIST_PATH}");
    let page = Page::new(found.total, found.movies, page, &list_url, &parameters)?;
    Ok(json_response(200, &page))
}

fn parse_list_request(
    request: &Request,
    context: &RequestContext,
    parameters: &QueryParameters,
) -> Result<(String, Option<Filter>, PageRequest), ApiError> {
    let base_url = base_url(request, &context.state.trusted_proxies)?;
    let filter = parse_filter(request.raw_query_string(), parameters)?;
    Ok((base_url, filter, parse_page(parameters)?))
}

/// `POST movies/`: creates a movie of the user.
///
/// # Errors
/// 400 for invalid fields.
pub fn create_movie(request: &Request, context: &RequestContext) -> HandlerResult {
    let requester = context.requester()?;
    let fields = context.check_user_before_error(parse_fields(request, false))?;
    let (Some(title), Some(genre), Some(year)) = (fields.title, fields.genre, fields.year) else {
        let reason = "validation accepted a movie without a required field";
        return Err(ApiError::Internal(reason.to_owned()));
    };
    let movie = NewMovie { title, genre, year };
    let movie = movies::create(context.database(), requester, movie)?;
    Ok(json_response(201, &movie))
}

/// `GET movies/{id}/`.
///
/// # Errors
/// 403 for a movie that the user may not see, 404 for one that does not exist.
pub fn read_movie(context: &RequestContext, MovieId(id): MovieId) -> HandlerResult {
    let found = movies::read(context.database(), context.requester()?, id)?;
    let movie = check_permission(Action::Read, found, context)?;
    Ok(json_response(200, &movie))
}

/// `PUT movies/{id}/`: replaces all fields.
///
/// # Errors
/// 400 for invalid fields, 403 unless the user created the movie, 404 for a movie that does not exist.
pub fn replace_movie(request: &Request, context: &RequestContext, id: MovieId) -> HandlerResult {
    change_movie(request, context, id, false)
}

/// `PATCH movies/{id}/`: as [`replace_movie`], but changes only the fields that are sent.
pub fn update_movie(request: &Request, context: &RequestContext, id: MovieId) -> HandlerResult {
    change_movie(request, context, id, true)
}

fn change_movie(
    request: &Request,
    context: &RequestContext,
    MovieId(id): MovieId,
    partial: bool,
) -> HandlerResult {
    let requester = context.requester()?;
    match parse_fields(request, partial) {
        Ok(changes) => {
            let found = movies::update(context.database(), requester, id, changes)?;
            let movie = check_permission(Action::Change, found, context)?;
            Ok(json_response(200, &movie.ok_or(ApiError::MovieNotFound)?))
        }
        Err(error) => {
            let found = movies::read(context.database(), requester, id)?;
            check_permission(Action::Change, found, context)?;
            Err(error)
        }
    }
}

/// `DELETE movies/{id}/`.
///
/// # Errors
/// 403 unless the user created the movie, 404 for a movie that does not exist.
pub fn delete_movie(context: &RequestContext, MovieId(id): MovieId) -> HandlerResult {
    let found = movies::delete(context.database(), context.requester()?, id)?;
    let deleted = check_permission(Action::Change, found, context)?;
    deleted.ok_or(ApiError::MovieNotFound)?;
    Ok(Response::empty_204())
}

/// What a request does with one movie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Read,
    /// Replace, update or delete.
    Change,
}

/// Returns what a statement did with a movie, if the user may do this, else 403. This is the only place that decides it for
/// read, update and delete. The statements for update and delete leave other users' movies as they are, so nothing has been
/// changed if this fails.
fn check_permission<T>(
    action: Action,
    found: Found<T>,
    context: &RequestContext,
) -> Result<T, ApiError> {
    let is_creator = found.creator_id == context.requester()?.user_id;
    let is_shared = action == Action::Read && context.state.visibility == Visibility::Shared;
    if is_creator || is_shared {
        Ok(found.outcome)
    } else {
        Err(ApiError::PermissionDenied)
    }
}

/// The fields of a movie in the body; without `partial`, all of them.
fn parse_fields(request: &Request, partial: bool) -> Result<Changes, ApiError> {
    let data = parse_body(request)?;
    let mut serializer = Serializer::new(&data, partial);
    let changes = Changes {
        title: serializer.text(&TITLE),
        genre: serializer.text(&GENRE),
        year: serializer.integer(YEAR),
    };
    serializer.errors.into_result()?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movie_id_is_written_in_ascii_digits_only() {
        assert_eq!("0042".parse(), Ok(MovieId(42)));
        assert_eq!("18446744073709551617".parse(), Ok(MovieId(-1)));
        for segment in ["", "+1", "-1", "1.0", "abc", "١", "1 ", "1x"] {
            assert_eq!(segment.parse::<MovieId>(), Err(()), "{segment}");
        }
    }
}
