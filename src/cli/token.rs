//! `token`: issues tokens for a user without their password.
use anyhow::ensure;
use clap::Args;
use serde_json::json;

use super::common::{Output, find_user, open_database};
use crate::auth::token::TokenKeys;
use crate::config::{DatabaseSettings, TokenSettings};

/// The arguments of `token`.
#[derive(Args, Debug)]
pub struct Token {
    /// Name of the user
    username: String,
    #[command(flatten)]
    database: DatabaseSettings,
    #[command(flatten)]
    tokens: TokenSettings,
    #[command(flatten)]
    output: Output,
}

/// Prints an access token for the user; with `--json` a refresh token too, as a sign-in returns them.
pub fn print(arguments: Token) -> anyhow::Result<()> {
    let username = &arguments.username;
    let user = find_user(&open_database(arguments.database)?, username)?;
    ensure!(
        user.is_active,
        "{username:?} is deactivated, so its tokens would be rejected: activate the user first"
    );
    let keys = make_keys(&arguments.tokens);
    let (refresh, access) = keys.issue_pair(user.id, user.token_generation)?;
    let pair = json!({ "refresh": refresh, "access": access });
    arguments.output.print(&pair, &[access])
}

pub fn make_keys(settings: &TokenSettings) -> TokenKeys {
    TokenKeys::new(
        &settings.secret_key,
        settings.secret_key_fallbacks.iter().flatten(),
        settings.access_token_lifetime,
        settings.refresh_token_lifetime,
    )
}
