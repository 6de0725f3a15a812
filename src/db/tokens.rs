//! Refresh tokens: one function for each file of sql/tokens.
use postgres::Row;

use super::session::parameters;
use super::users::{Requester, check_requester};
use super::{Error, RequestDatabase, Sql, first_row, get, sql};

const FIND_REFRESH: Sql = sql!("tokens/find_refresh", [INT8, BYTEA]);
const BLACKLIST: Sql = sql!(Write "tokens/blacklist", [INT8, INT8, BYTEA, INT8]);

/// What the database has to know of a verified token.
pub struct TokenRecord {
    /// `None` for a token that names no user.
    pub owner: Option<Requester>,
    /// SHA-256 of the token's id.
    pub id_digest: Vec<u8>,
    /// In seconds since 1970, at most the last of the year 9999.
    pub expires: i64,
}

/// Checks that a token is not blacklisted, and may be used by its user.
///
/// # Errors
/// [`Error::BlacklistedToken`]; then, if the token names a user, as [`find_active`](super::users::find_active).
pub fn check(database: RequestDatabase, token: &TokenRecord) -> Result<(), Error> {
    let parameters = parameters![
        token.owner.map(|owner| owner.user_id),
        token.id_digest.clone()
    ];
    let rows = database.run(FIND_REFRESH, &parameters)?;
    check_row(first_row(&rows, &FIND_REFRESH)?, token, &FIND_REFRESH)
}

/// Blacklists a token. Of several requests for one token at the same time, one succeeds.
///
/// # Errors
/// As [`check`].
pub fn blacklist(database: RequestDatabase, token: &TokenRecord) -> Result<(), Error> {
    let parameters = parameters![
        token.owner.map(|owner| owner.user_id),
        token.owner.map(|owner| owner.token_generation),
        token.id_digest.clone(),
        token.expires,
    ];
    let rows = database.run(BLACKLIST, &parameters)?;
    let row = first_row(&rows, &BLACKLIST)?;
    check_row(row, token, &BLACKLIST)?;
    match get(row, "is_added", &BLACKLIST)? {
        true => Ok(()),
        false => Err(Error::BlacklistedToken),
    }
}

fn check_row(row: &Row, token: &TokenRecord, sql: &Sql) -> Result<(), Error> {
    if get(row, "is_blacklisted", sql)? {
        return Err(Error::BlacklistedToken);
    }
    match token.owner {
        Some(owner) => check_requester(row, owner, sql),
        None => Ok(()),
    }
}
