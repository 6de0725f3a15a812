//! `token`: issues tokens for a user without their password.
use serde::Serialize;

use super::common::{Output, find_user, open_database};
use crate::auth::token::TokenKeys;
use crate::config::{DatabaseSettings, TokenSettings};

#[derive(Serialize)]
struct TokenPair {
    refresh: String,
    access: String,
}

/// Prints an access token for the user; with `--json` a refresh token too, as a sign-in returns them.
pub fn print(
    username: &str,
    database: DatabaseSettings,
    tokens: &TokenSettings,
    output: &Output,
) -> anyhow::Result<()> {
    let user = find_user(&open_database(database)?, username)?;
    anyhow::ensure!(
        user.is_active,
        "{username:?} is deactivated, so its tokens would be rejected: activate the user first"
    );
    let (refresh, access) = make_keys(tokens).issue_pair(user.id, user.token_generation)?;
    let line = access.clone();
    output.print(&TokenPair { refresh, access }, &[line])
}

pub fn make_keys(settings: &TokenSettings) -> TokenKeys {
    TokenKeys::new(
        &settings.secret_key,
        settings.secret_key_fallbacks.iter().flatten(),
        settings.access_token_lifetime,
        settings.refresh_token_lifetime,
    )
}
