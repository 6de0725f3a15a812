//! Movies: list, create, read, replace, update, delete. Each answers with one statement where all is well; who asks
//! is judged before what they sent, so a refusal may cost one of its own.
use std::str::FromStr;

use rouille::{Request, Response};

use super::error::Error;
use super::fields::{NOT_A_STRING, Presence, Reader, Rule, TextField};
use super::forwarded::find_origin;
use super::pagination::Envelope;
use super::query::{Query, check_field_count};
use super::{Context, Visibility, answer_json, body};
use crate::db::movies::{self, Changes, Filter, Found, NewMovie, PageRequest, Scope};
use crate::db::users;

/// Kept as sent, trimmed.
pub const TITLE: TextField = TextField {
    name: "title",
    wrong_kind: NOT_A_STRING,
    may_be_blank: false,
    rules: &[Rule::AtMost(100), Rule::WithoutNull],
};

/// As the title.
pub const GENRE: TextField = TextField {
    name: "genre",
    ..TITLE
};

/// A 32-bit integer.
pub const YEAR: &str = "year";

/// The path of the list, to which links lead.
pub const LIST_PATH: &str = "/api/v1/movies/";

/// A movie's id in a path: ASCII digits alone, where a number's own FromStr would take a sign. Digits past 64 bits
/// are -1, which the schema gives to no movie.
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

/// Whether a `GET movies/` may take a statement of its own, whose cost varies: any list but the first page of one's own.
pub fn is_heavy_list(request: &Request, visibility: Visibility) -> bool {
    // The query undecoded: whatever is not plainly a first page counts as heavy, and is answered all the same.
    let says_little = |pair: &str| {
        matches!(
            pair.split_once('='),
            None | Some((_, "") | ("page", "1") | ("page_size", _))
        )
    };
    visibility == Visibility::Shared || !request.raw_query_string().split('&').all(says_little)
}

/// `GET movies/`: one page, newest first.
pub fn list_movies(request: &Request, context: &Context, user_id: i64) -> Result<Response, Error> {
    let query = Query::parse(request.raw_query_string());
    let (origin, filter, page) = match read_list_request(request, context, &query) {
        Ok(wanted) => wanted,
        Err(refusal) => {
            users::find_active(context.store(), user_id)?;
            return Err(refusal);
        }
    };
    let scope = match context.app.visibility {
        Visibility::Own => Scope::Own,
        Visibility::Shared => Scope::All,
    };
    let found = match filter {
        None => movies::list(context.store(), user_id, scope, page)?,
        Some(filter) => movies::search(context.store(), user_id, scope, page, &filter)?,
    };
    let address = format!("{origin}{LIST_PATH}");
    Ok(answer_json(
        200,
        &Envelope::new(found, page, &address, &query)?,
    ))
}

fn read_list_request(
    request: &Request,
    context: &Context,
    query: &Query,
) -> Result<(String, Option<Filter>, PageRequest), Error> {
    let origin = find_origin(request, &context.app.trusted_proxies)?;
    check_field_count(request.raw_query_string().as_bytes())?;
    let filter = query.filter()?;
    Ok((origin, filter, query.page()?))
}

/// `POST movies/`: a new movie of the user who asks.
pub fn create_movie(request: &Request, context: &Context, user_id: i64) -> Result<Response, Error> {
    match read_changes(request, Presence::Required) {
        Ok(Changes {
            title: Some(title),
            genre: Some(genre),
            year: Some(year),
        }) => {
            let movie = movies::create(context.store(), user_id, NewMovie { title, genre, year })?;
            Ok(answer_json(201, &movie))
        }
        Ok(_) => Err(Error::Fault(
            "a required field passed without a value".to_owned(),
        )),
        Err(refusal) => {
            users::find_active(context.store(), user_id)?;
            Err(refusal)
        }
    }
}

/// `GET movies/{id}/`.
pub fn read_movie(
    context: &Context,
    user_id: i64,
    MovieId(id): MovieId,
) -> Result<Response, Error> {
    let found = movies::read(context.store(), user_id, id)?;
    let movie = permit(Action::Read, found, user_id, context.app.visibility)?;
    Ok(answer_json(200, &movie))
}

/// `PUT movies/{id}/`: all fields anew.
pub fn replace_movie(
    request: &Request,
    context: &Context,
    user_id: i64,
    id: MovieId,
) -> Result<Response, Error> {
    change_movie(request, context, user_id, id, Presence::Required)
}

/// `PATCH movies/{id}/`: those fields that are sent.
pub fn update_movie(
    request: &Request,
    context: &Context,
    user_id: i64,
    id: MovieId,
) -> Result<Response, Error> {
    change_movie(request, context, user_id, id, Presence::Optional)
}

fn change_movie(
    request: &Request,
    context: &Context,
    user_id: i64,
    MovieId(id): MovieId,
    presence: Presence,
) -> Result<Response, Error> {
    match read_changes(request, presence) {
        Ok(changes) => {
            let found = movies::update(context.store(), user_id, id, changes)?;
            let movie = permit(Action::Change, found, user_id, context.app.visibility)?;
            Ok(answer_json(200, &movie.ok_or(Error::MovieNotFound)?))
        }
        Err(refusal) => {
            let found = movies::read(context.store(), user_id, id)?;
            permit(Action::Change, found, user_id, context.app.visibility)?;
            Err(refusal)
        }
    }
}

/// `DELETE movies/{id}/`.
pub fn delete_movie(
    context: &Context,
    user_id: i64,
    MovieId(id): MovieId,
) -> Result<Response, Error> {
    let found = movies::delete(context.store(), user_id, id)?;
    let deleted = permit(Action::Change, found, user_id, context.app.visibility)?;
    deleted.ok_or(Error::MovieNotFound)?;
    Ok(Response::empty_204())
}

/// What a request does with one movie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Read,
    /// Replace, update or delete.
    Change,
}

/// Returns the outcome if the user may do this with the movie, else a 403 error. This is the only place that decides it
/// for read, update and delete. The statements for update and delete leave other users' movies as they are, so nothing
/// has been changed where this returns an error.
fn permit<T>(
    action: Action,
    found: Found<T>,
    user_id: i64,
    visibility: Visibility,
) -> Result<T, Error> {
    let is_creator = found.creator_id == user_id;
    let may_read = action == Action::Read && visibility == Visibility::Shared;
    if is_creator || may_read {
        Ok(found.outcome)
    } else {
        Err(Error::PermissionDenied)
    }
}

fn read_changes(request: &Request, presence: Presence) -> Result<Changes, Error> {
    let fields = body::read_fields(request)?;
    let mut reader = Reader::new(&fields);
    let changes = Changes {
        title: reader.text(&TITLE, presence),
        genre: reader.text(&GENRE, presence),
        year: reader.integer(YEAR, presence),
    };
    reader.errors.into_result()?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ascii_digits_alone() {
        assert_eq!("0042".parse(), Ok(MovieId(42)));
        assert_eq!("18446744073709551617".parse(), Ok(MovieId(-1)));
        for segment in ["", "+1", "-1", "1.0", "abc", "١", "1 ", "1x"] {
            assert_eq!(segment.parse::<MovieId>(), Err(()), "{segment}");
        }
    }
}
