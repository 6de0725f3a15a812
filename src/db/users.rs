//! What the database knows of users: one function per file of sql/users/.
use postgres::Row;
use serde::Serialize;

use super::session::{Parameters, parameters};
use super::{Access, Error, Sql, sql};

const CREATE: Sql = sql!(write "users/create", [TEXT, TEXT, TEXT, TEXT, TEXT]);
const FIND_TAKEN: Sql = sql!("users/find_existing", [TEXT, TEXT]);
const FIND_CREDENTIALS: Sql = sql!("users/find_credentials", [TEXT]);
const FIND_ACTIVE: Sql = sql!("users/find_active", [INT8]);

const LIST: Sql = sql!("users/list", []);
const SET_ACTIVE: Sql = sql!(write "users/set_active", [INT8, BOOL]);
const SET_PASSWORD_HASH: Sql = sql!(write "users/set_password_hash", [INT8, TEXT, TEXT]);

const DELETE: Sql = sql!(write "users/delete", [INT8]);

/// A user to be made; every field was judged before.
pub struct NewUser<'a> {
    /// At most 150 code points.
    pub username: &'a str,
    /// At most 254 code points.
    pub email: &'a str,
    /// In Django's form.
    pub password_hash: &'a str,
    /// At most 150 code points.
    pub first_name: &'a str,
    /// At most 150 code points.
    pub last_name: &'a str,
}

/// Which unique fields of a new user another already has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The username.
    pub username: bool,
    /// The e-mail address.
    pub email: bool,
}

/// What a sign-in is judged by.
pub struct Credentials {
    /// The user.
    pub id: i64,
    /// In Django's form.
    pub password_hash: String,
    /// Whether the user may sign in.
    pub is_active: bool,
}

/// A user as operators see one.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// The user.
    pub id: i64,
    /// Unique.
    pub username: String,
    /// Unique.
    pub email: String,
    /// May be blank.
    pub first_name: String,
    /// May be blank.
    pub last_name: String,
    /// Whether the user may sign in.
    pub is_active: bool,
    /// UTC, as RFC 3339 writes it.
    pub date_joined: String,
    /// Movies of theirs.
    pub movie_count: i64,
}

/// Makes a user: the new id, or which field is taken. One who loses a race for a name is told as one who comes
/// later.
pub fn create(access: Access, user: &NewUser) -> Result<Result<i64, Taken>, Error> {
    let parameters: Parameters = parameters![
        user.username.to_owned(),
        user.email.to_owned(),
        user.password_hash.to_owned(),
        user.first_name.to_owned(),
        user.last_name.to_owned(),
    ];
    let rows = match access.run(CREATE, &parameters) {
        Ok(rows) => rows,
        // The constraint is the first that was met; another may be too.
        Err(Error::Conflict(constraint)) => {
            let taken = find_taken(access, Some(user.username), Some(user.email))?;
            return match taken == Taken::default() {
                true => Err(Error::Conflict(constraint)),
                false => Ok(Err(taken)),
            };
        }
        Err(error) => return Err(error),
    };
    let row = rows
        .first()
        .ok_or_else(|| CREATE.fault("it answered without a row"))?;
    let read = || -> Result<_, postgres::Error> {
        let taken = Taken {
            username: row.try_get("username_taken")?,
            email: row.try_get("email_taken")?,
        };
        let id: Option<i64> = row.try_get("id")?;
        Ok(id.ok_or(taken))
    };
    read().map_err(|error| CREATE.fault(error))
}

/// Which of the two another user already has; `None` asks nothing.
pub fn find_taken(
    access: Access,
    username: Option<&str>,
    email: Option<&str>,
) -> Result<Taken, Error> {
    let parameters: Parameters = parameters![username.map(str::to_owned), email.map(str::to_owned)];
    let rows = access.run(FIND_TAKEN, &parameters)?;
    let row = rows
        .first()
        .ok_or_else(|| FIND_TAKEN.fault("it answered without a row"))?;
    let read = || -> Result<_, postgres::Error> {
        Ok(Taken {
            username: row.try_get("username_taken")?,
            email: row.try_get("email_taken")?,
        })
    };
    read().map_err(|error| FIND_TAKEN.fault(error))
}

/// What a sign-in under this name, case-sensitive, is judged by; `None` if nobody has it.
pub fn find_credentials(access: Access, username: &str) -> Result<Option<Credentials>, Error> {
    let parameters: Parameters = parameters![username.to_owned()];
    let rows = access.run(FIND_CREDENTIALS, &parameters)?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let read = || -> Result<_, postgres::Error> {
        Ok(Some(Credentials {
            id: row.try_get("id")?,
            password_hash: row.try_get("password_hash")?,
            is_active: row.try_get("is_active")?,
        }))
    };
    read().map_err(|error| FIND_CREDENTIALS.fault(error))
}

/// Makes sure that the user is there and active.
///
/// # Errors
/// [`Error::UnknownUser`] and [`Error::InactiveUser`].
pub fn find_active(access: Access, id: i64) -> Result<(), Error> {
    let parameters: Parameters = parameters![id];
    let rows = access.run(FIND_ACTIVE, &parameters)?;
    match rows.first().map(|row| row.try_get("is_active")) {
        None => Err(Error::UnknownUser),
        Some(Ok(true)) => Ok(()),
        Some(Ok(false)) => Err(Error::InactiveUser),
        Some(Err(error)) => Err(FIND_ACTIVE.fault(error)),
    }
}

/// All users, in the order of their ids.
pub fn list(access: Access) -> Result<Vec<Listed>, Error> {
    let none: Parameters = parameters![];
    let rows = access.run(LIST, &none)?;
    let read = |row: &Row| -> Result<_, postgres::Error> {
        Ok(Listed {
            id: row.try_get("id")?,
            username: row.try_get("username")?,
            email: row.try_get("email")?,
            first_name: row.try_get("first_name")?,
            last_name: row.try_get("last_name")?,
            is_active: row.try_get("is_active")?,
            date_joined: row.try_get("date_joined")?,
            movie_count: row.try_get("movie_count")?,
        })
    };
    let users = rows.iter().map(read).collect::<Result<_, _>>();
    users.map_err(|error| LIST.fault(error))
}

/// Lets the user sign in or not. The tokens of one who may not are refused from now on.
pub fn set_active(access: Access, id: i64, is_active: bool) -> Result<(), Error> {
    let parameters: Parameters = parameters![id, is_active];
    access.run(SET_ACTIVE, &parameters).map(|_| ())
}

/// Deletes the user and their movies, in one statement and so within its timeout. Returns how many movies they had, or
/// `None` if there is no such user.
pub fn delete(access: Access, id: i64) -> Result<Option<i64>, Error> {
    let parameters: Parameters = parameters![id];
    let rows = access.run(DELETE, &parameters)?;
    let movie_count = rows.first().map(|row| row.try_get("movie_count"));
    movie_count.transpose().map_err(|error| DELETE.fault(error))
}

/// Keeps this hash of the user's password from now on; with a `former` one, only in its place.
pub fn set_password_hash(
    access: Access,
    id: i64,
    hash: &str,
    former: Option<&str>,
) -> Result<(), Error> {
    let parameters: Parameters = parameters![id, hash.to_owned(), former.map(str::to_owned)];
    access.run(SET_PASSWORD_HASH, &parameters).map(|_| ())
}
