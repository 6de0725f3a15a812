//! Users: one function for each file of sql/users, except those that delete accounts (account_deletion.rs).
use postgres::Row;
use serde::Serialize;
use utoipa::ToSchema;

use super::session::parameters;
use super::{Error, RequestDatabase, Sql, decode, first_row, get, sql};

const CREATE: Sql = sql!(Write "users/create", [TEXT, TEXT, TEXT, TEXT, TEXT]);
const FIND_TAKEN: Sql = sql!("users/find_existing", [TEXT, TEXT]);
const FIND_CREDENTIALS: Sql = sql!("users/find_credentials", [TEXT]);
const FIND_ACTIVE: Sql = sql!("users/find_active", [INT8]);
const LIST: Sql = sql!("users/list", []);
const SET_ACTIVE: Sql = sql!(Write "users/set_active", [INT8, BOOL]);
const SET_PASSWORD_HASH: Sql = sql!(Write "users/set_password_hash", [INT8, TEXT, TEXT]);
const FIND_ACCOUNT: Sql = sql!("users/find_account", [INT8]);
const UPDATE_ACCOUNT: Sql = sql!(Write "users/update_account", [INT8, INT8, TEXT, TEXT, TEXT]);
const CHANGE_PASSWORD: Sql = sql!(Write "users/change_password", [INT8, INT8, TEXT]);
const SIGN_OUT: Sql = sql!(Write "users/sign_out", [INT8]);

/// The user who makes a request, from the request's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The user's id; the user need not exist.
    pub user_id: i64,
    /// The generation of the token: it is valid as long as this is the generation of the user's valid tokens.
    pub token_generation: i64,
}

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
    /// The generation of the user's valid tokens, from 0.
    pub token_generation: i64,
}

/// An account as its user sees it. The order of the fields is that of the JSON object.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Account {
    /// From 1.
    #[schema(example = 1)]
    pub id: i64,
    /// At most 150 code points.
    #[schema(example = "ann")]
    pub username: String,
    /// At most 254 code points.
    #[schema(example = "ann@example.com")]
    pub email: String,
    /// At most 150 code points.
    #[schema(example = "Ann")]
    pub first_name: String,
    /// At most 150 code points.
    #[schema(example = "Lee")]
    pub last_name: String,
}

/// The new values of an account's fields; a field that is `None` keeps its value.
#[derive(Default)]
pub struct AccountChanges {
    /// At most 254 code points.
    pub email: Option<String>,
    /// At most 150 code points.
    pub first_name: Option<String>,
    /// At most 150 code points.
    pub last_name: Option<String>,
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
    let parameters = parameters![
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
    let parameters = parameters![username.map(str::to_owned), email.map(str::to_owned)];
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
    let rows = database.run(FIND_CREDENTIALS, &parameters![username.to_owned()])?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Credentials {
        id: get(row, "id", &FIND_CREDENTIALS)?,
        password_hash: get(row, "password_hash", &FIND_CREDENTIALS)?,
        is_active: get(row, "is_active", &FIND_CREDENTIALS)?,
        token_generation: get::<i32>(row, "token_generation", &FIND_CREDENTIALS)?.into(),
    }))
}

/// Checks that the user exists and is active, and the token is not revoked.
///
/// # Errors
/// [`Error::UnknownUser`], [`Error::InactiveUser`] or [`Error::RevokedToken`]; another if the database fails.
pub fn find_active(database: RequestDatabase, requester: Requester) -> Result<(), Error> {
    let rows = database.run(FIND_ACTIVE, &parameters![requester.user_id])?;
    let row = rows.first().ok_or(Error::UnknownUser)?;
    check_requester(row, requester, &FIND_ACTIVE)
}

/// Checks the columns `user_is_active` and `current_generation`, which every statement returns of the user who makes the
/// request. This is the only place that decides whether a user may make requests with a token.
///
/// # Errors
/// As [`find_active`].
pub(super) fn check_requester(row: &Row, requester: Requester, sql: &Sql) -> Result<(), Error> {
    match get(row, "user_is_active", sql)? {
        None => Err(Error::UnknownUser),
        Some(false) => Err(Error::InactiveUser),
        Some(true) => {
            let current: i32 = get(row, "current_generation", sql)?;
            match i64::from(current) == requester.token_generation {
                true => Ok(()),
                false => Err(Error::RevokedToken),
            }
        }
    }
}

/// Returns the account of the user who makes the request, and the hash of its password.
///
/// # Errors
/// As [`find_active`].
pub fn find_account(
    database: RequestDatabase,
    requester: Requester,
) -> Result<(Account, String), Error> {
    let rows = database.run(FIND_ACCOUNT, &parameters![requester.user_id])?;
    let row = rows.first().ok_or(Error::UnknownUser)?;
    check_requester(row, requester, &FIND_ACCOUNT)?;
    let account = decode_account(row, &FIND_ACCOUNT)?.ok_or(Error::UnknownUser)?;
    Ok((account, get(row, "password_hash", &FIND_ACCOUNT)?))
}

/// Changes the account of the user who makes the request and returns it, or `None` if another user has the address.
///
/// # Errors
/// As [`find_active`].
pub fn update_account(
    database: RequestDatabase,
    requester: Requester,
    changes: AccountChanges,
) -> Result<Option<Account>, Error> {
    let parameters = parameters![
        requester.user_id,
        requester.token_generation,
        changes.email,
        changes.first_name,
        changes.last_name,
    ];
    let rows = match database.run(UPDATE_ACCOUNT, &parameters) {
        // Another request took the address after the statement had looked for it.
        Err(Error::Conflict(constraint)) if constraint == "users_email_unique" => return Ok(None),
        rows => rows?,
    };
    let row = first_row(&rows, &UPDATE_ACCOUNT)?;
    check_requester(row, requester, &UPDATE_ACCOUNT)?;
    if get(row, "email_taken", &UPDATE_ACCOUNT)? {
        return Ok(None);
    }
    match decode_account(row, &UPDATE_ACCOUNT)? {
        Some(account) => Ok(Some(account)),
        None => Err(reason_for_no_change(database, requester)),
    }
}

/// Why a statement that had to change the user who makes the request found no such user: after its snapshot was taken,
/// another request deleted or deactivated the user, or revoked the token.
fn reason_for_no_change(database: RequestDatabase, requester: Requester) -> Error {
    let active = find_active(database, requester);
    active.err().unwrap_or(Error::RevokedToken)
}

/// Returns the account in a row, or `None` if its columns are null.
fn decode_account(row: &Row, sql: &Sql) -> Result<Option<Account>, Error> {
    let Some(id) = get(row, "id", sql)? else {
        return Ok(None);
    };
    Ok(Some(Account {
        id,
        username: get(row, "username", sql)?,
        email: get(row, "email", sql)?,
        first_name: get(row, "first_name", sql)?,
        last_name: get(row, "last_name", sql)?,
    }))
}

/// Stores a new password of the user who makes the request, and returns the generation of the tokens that are valid from
/// now on. All tokens that were issued before are revoked.
///
/// # Errors
/// As [`find_active`], if another request changed the password or the user meanwhile.
pub fn change_password(
    database: RequestDatabase,
    requester: Requester,
    hash: &str,
) -> Result<i64, Error> {
    let parameters = parameters![
        requester.user_id,
        requester.token_generation,
        hash.to_owned(),
    ];
    let rows = database.run(CHANGE_PASSWORD, &parameters)?;
    let Some(row) = rows.first() else {
        return Err(reason_for_no_change(database, requester));
    };
    let generation: i32 = get(row, "token_generation", &CHANGE_PASSWORD)?;
    Ok(generation.into())
}

/// Revokes all tokens of the user, or of all users if `id` is `None`, that were issued before. Returns how many users those
/// are.
///
/// # Errors
/// If the database fails.
pub fn sign_out(database: RequestDatabase, id: Option<i64>) -> Result<i64, Error> {
    let rows = database.run(SIGN_OUT, &parameters![id])?;
    get(first_row(&rows, &SIGN_OUT)?, "user_count", &SIGN_OUT)
}

/// Returns all users, in the order of their ids.
///
/// # Errors
/// If the database fails.
pub fn list(database: RequestDatabase) -> Result<Vec<UserSummary>, Error> {
    let rows = database.run(LIST, &parameters![])?;
    let users = rows.iter().map(|row| {
        Ok(decode!(row, &LIST => UserSummary {
            id, username, email, first_name, last_name, is_active, date_joined, movie_count,
        }))
    });
    users.collect()
}

/// Activates or deactivates a user. Tokens of a deactivated user are rejected from then on. Returns false if the user does
/// not exist.
///
/// # Errors
/// If the database fails.
pub fn set_active(database: RequestDatabase, id: i64, is_active: bool) -> Result<bool, Error> {
    let parameters = parameters![id, is_active];
    let rows = database.run(SET_ACTIVE, &parameters)?;
    Ok(!rows.is_empty())
}

/// Stores a password hash. If `former` is given, only where the stored hash is that one; otherwise the password is a new
/// one, and all tokens that were issued before are revoked. Returns whether it was stored.
///
/// # Errors
/// If the database fails.
pub fn set_password_hash(
    database: RequestDatabase,
    id: i64,
    hash: &str,
    former: Option<&str>,
) -> Result<bool, Error> {
    let parameters = parameters![id, hash.to_owned(), former.map(str::to_owned)];
    let rows = database.run(SET_PASSWORD_HASH, &parameters)?;
    Ok(!rows.is_empty())
}
