//! Users: one function for each file of sql/users.
use postgres::Row;
use serde::Serialize;

use super::session::{Parameters, parameters};
use super::{Error, RequestDatabase, Sql, first_row, get, sql};

const CREATE: Sql = sql!(write "users/create", [TEXT, TEXT, TEXT, TEXT, TEXT]);
const FIND_TAKEN: Sql = sql!("users/find_existing", [TEXT, TEXT]);
const FIND_CREDENTIALS: Sql = sql!("users/find_credentials", [TEXT]);
const FIND_ACTIVE: Sql = sql!("users/find_active", [INT8]);
const LIST: Sql = sql!("users/list", []);
const SET_ACTIVE: Sql = sql!(write "users/set_active", [INT8, BOOL]);
const SET_PASSWORD_HASH: Sql = sql!(write "users/set_password_hash", [INT8, TEXT, TEXT]);
const DELETE: Sql = sql!(write "users/delete", [INT8]);

/// A user to create, with validated fields.
pub struct NewUser<'a> {
    /// At most 150 code points.
    pub username: &'a str,
    /// At most 254 code points.
    pub email: &'a str,
    /// In Django's format.
    pub password_hash: &'a str,
    /// At most 150 code points.
    pub first_name: &'a str,
    /// At most 150 code points.
    pub last_name: &'a str,
}

/// Which unique fields of a new user another user already has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenFields {
    /// Compared case-sensitively.
    pub username: bool,
    /// Compared case-sensitively; a blank address is never taken.
    pub email: bool,
}

/// What a login is checked against.
pub struct Credentials {
    /// The user's id.
    pub id: i64,
    /// In Django's format.
    pub password_hash: String,
    /// Whether the user may log in.
    pub is_active: bool,
}

/// A user as `users list` shows one.
#[derive(Clone, Debug, Serialize)]
pub struct UserSummary {
    /// From 1.
    pub id: i64,
    /// Unique.
    pub username: String,
    /// Unique unless blank.
    pub email: String,
    /// May be blank.
    pub first_name: String,
    /// May be blank.
    pub last_name: String,
    /// Whether the user may log in.
    pub is_active: bool,
    /// In UTC, as RFC 3339 has it.
    pub date_joined: String,
    /// The number of movies that the user created.
    pub movie_count: i64,
}

/// Creates a user and returns the id, or which fields are taken. Of two requests for one name at the same time, the later
/// gets the same result as if the first had ended before.
///
/// # Errors
/// If the database fails.
pub fn create(
    database: RequestDatabase,
    user: &NewUser,
) -> Result<Result<i64, TakenFields>, Error> {
    let parameters: Parameters = parameters![
        user.username.to_owned(),
        user.email.to_owned(),
        user.password_hash.to_owned(),
        user.first_name.to_owned(),
        user.last_name.to_owned(),
    ];
    let rows = match database.run(CREATE, &parameters) {
        Ok(rows) => rows,
        // The server names only the first constraint that is violated.
        Err(Error::Conflict(constraint)) => {
            let taken = find_taken(database, Some(user.username), Some(user.email))?;
            return match taken == TakenFields::default() {
                true => Err(Error::Conflict(constraint)),
                false => Ok(Err(taken)),
            };
        }
        Err(error) => return Err(error),
    };
    let row = first_row(&rows, &CREATE)?;
    let id: Option<i64> = get(row, "id", &CREATE)?;
    match id {
        Some(id) => Ok(Ok(id)),
        None => Ok(Err(decode_taken(row, &CREATE)?)),
    }
}

/// Returns which of the fields another user already has. A field that is `None` is not looked up.
///
/// # Errors
/// If the database fails.
pub fn find_taken(
    database: RequestDatabase,
    username: Option<&str>,
    email: Option<&str>,
) -> Result<TakenFields, Error> {
    let parameters: Parameters = parameters![username.map(str::to_owned), email.map(str::to_owned)];
    let rows = database.run(FIND_TAKEN, &parameters)?;
    decode_taken(first_row(&rows, &FIND_TAKEN)?, &FIND_TAKEN)
}

fn decode_taken(row: &Row, sql: &Sql) -> Result<TakenFields, Error> {
    Ok(TakenFields {
        username: get(row, "username_taken", sql)?,
        email: get(row, "email_taken", sql)?,
    })
}

/// Returns the credentials of the user with this name (case-sensitive), or `None` if there is none.
///
/// # Errors
/// If the database fails.
pub fn find_credentials(
    database: RequestDatabase,
    username: &str,
) -> Result<Option<Credentials>, Error> {
    let parameters: Parameters = parameters![username.to_owned()];
    let rows = database.run(FIND_CREDENTIALS, &parameters)?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Credentials {
        id: get(row, "id", &FIND_CREDENTIALS)?,
        password_hash: get(row, "password_hash", &FIND_CREDENTIALS)?,
        is_active: get(row, "is_active", &FIND_CREDENTIALS)?,
    }))
}

/// Checks that the user exists and is active.
///
/// # Errors
/// [`Error::UnknownUser`] or [`Error::InactiveUser`]; another if the database fails.
pub fn find_active(database: RequestDatabase, id: i64) -> Result<(), Error> {
    let parameters: Parameters = parameters![id];
    let rows = database.run(FIND_ACTIVE, &parameters)?;
    let row = rows.first().ok_or(Error::UnknownUser)?;
    match get(row, "is_active", &FIND_ACTIVE)? {
        true => Ok(()),
        false => Err(Error::InactiveUser),
    }
}

/// Returns all users, in the order of their ids.
///
/// # Errors
/// If the database fails.
pub fn list(database: RequestDatabase) -> Result<Vec<UserSummary>, Error> {
    let no_parameters: Parameters = parameters![];
    let rows = database.run(LIST, &no_parameters)?;
    rows.iter().map(decode_summary).collect()
}

fn decode_summary(row: &Row) -> Result<UserSummary, Error> {
    Ok(UserSummary {
        id: get(row, "id", &LIST)?,
        username: get(row, "username", &LIST)?,
        email: get(row, "email", &LIST)?,
        first_name: get(row, "first_name", &LIST)?,
        last_name: get(row, "last_name", &LIST)?,
        is_active: get(row, "is_active", &LIST)?,
        date_joined: get(row, "date_joined", &LIST)?,
        movie_count: get(row, "movie_count", &LIST)?,
    })
}

/// Activates or deactivates a user. Tokens of a deactivated user are rejected from then on.
///
/// # Errors
/// If the database fails.
pub fn set_active(database: RequestDatabase, id: i64, is_active: bool) -> Result<(), Error> {
    let parameters: Parameters = parameters![id, is_active];
    database.run(SET_ACTIVE, &parameters).map(|_| ())
}

/// Deletes a user and their movies, in one statement and so within its timeout. Returns how many movies the user had, or
/// `None` if there is no such user.
///
/// # Errors
/// If the database fails.
pub fn delete(database: RequestDatabase, id: i64) -> Result<Option<i64>, Error> {
    let parameters: Parameters = parameters![id];
    let rows = database.run(DELETE, &parameters)?;
    let row = rows.first();
    row.map(|row| get(row, "movie_count", &DELETE)).transpose()
}

/// Stores a password hash; if `former` is given, only where the stored hash is that one.
///
/// # Errors
/// If the database fails.
pub fn set_password_hash(
    database: RequestDatabase,
    id: i64,
    hash: &str,
    former: Option<&str>,
) -> Result<(), Error> {
    let parameters: Parameters = parameters![id, hash.to_owned(), former.map(str::to_owned)];
    database.run(SET_PASSWORD_HASH, &parameters).map(|_| ())
}
