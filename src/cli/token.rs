//! `token`: a user's tokens without a password, signed as a sign-in's.
use serde::Serialize;

use super::{Output, find_user, make_keys, open_store};
use crate::config::{DatabaseSettings, TokenSettings};

#[derive(Serialize)]
struct Issued {
    refresh: String,
    access: String,
}

/// Prints an access token of the user; as JSON also a refresh token.
pub fn print(
    username: &str,
    database: DatabaseSettings,
    tokens: &TokenSettings,
    output: &Output,
) -> anyhow::Result<()> {
    let user = find_user(&open_store(database)?, username)?;
    anyhow::ensure!(
        user.is_active,
        "{username:?} is deactivated, and a token would be refused"
    );
    let (refresh, access) = make_keys(tokens).issue_pair(user.id)?;
    let line = access.clone();
    output.print(&Issued { refresh, access }, &[line])
}
