//! `users`: lists, creates, changes and deletes users. A running service applies a change to its next request.
use std::io::{self, BufRead, IsTerminal};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::common::{CommonArguments, Output, find_user, open_database, with_deadline};
use crate::api::{register_account, validate_password};
use crate::auth::bcrypt_cost::check_cost;
use crate::auth::password::{HASH_TIMEOUT, Hasher, HashingOptions};
use crate::config::{DatabaseSettings, PasswordSettings};
use crate::db::account_deletion;
use crate::db::users::{self, UserSummary};

/// The error of a command whose user was there when it began.
const DELETED_MEANWHILE: &str = "the user was deleted in the meantime";

/// An operation on users.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // the flattened groups are documented at their types
pub enum Users {
    /// List all users
    List(CommonArguments),
    /// Create a user by the rules of a registration, with a password read from the terminal or from standard input
    Create(NewUser),
    /// Prevent a user from signing in, and reject the user's tokens from now on
    Deactivate(ExistingUser),
    /// Allow a deactivated user to sign in again
    Activate(ExistingUser),
    /// Delete a user with all their movies, after confirmation on the terminal
    Delete {
        #[command(flatten)]
        user: ExistingUser,
        /// Delete without confirmation; required if standard input is not a terminal
        #[arg(long)]
        yes: bool,
    },
    /// Reject all tokens that a user, or every user, has now: they have to sign in again
    SignOut(SignedOut),
    /// Set a new password for a user, read from the terminal or from standard input. It rejects the user's tokens
    SetPassword {
        #[command(flatten)]
        user: ExistingUser,
        #[command(flatten)]
        passwords: PasswordSettings,
    },
}

/// The arguments of `users create`.
#[derive(Args, Debug)]
pub struct NewUser {
    /// Name to sign in with
    username: String,
    /// E-mail address, which no other user may have
    #[arg(long)]
    email: String,
    /// First name
    #[arg(long, default_value = "", hide_default_value = true)]
    first_name: String,
    /// Last name
    #[arg(long, default_value = "", hide_default_value = true)]
    last_name: String,
    #[command(flatten)]
    database: DatabaseSettings,
    #[command(flatten)]
    passwords: PasswordSettings,
    #[command(flatten)]
    output: Output,
}

/// The arguments of operations on one existing user.
#[derive(Args, Debug)]
pub struct ExistingUser {
    /// Name of the user; must follow `--` if it begins with a hyphen
    username: String,
    #[command(flatten)]
    common: CommonArguments,
}

/// The arguments of `users sign-out`.
#[derive(Args, Debug)]
pub struct SignedOut {
    /// Name of the user; must follow `--` if it begins with a hyphen
    #[arg(required_unless_present = "all")]
    username: Option<String>,
    /// Every user
    #[arg(long, conflicts_with = "username")]
    all: bool,
    #[command(flatten)]
    common: CommonArguments,
}

pub fn run(action: Users) -> anyhow::Result<()> {
    match action {
        Users::List(CommonArguments { database, output }) => {
            let listed = users::list(with_deadline(&open_database(database)?))?;
            output.print(&listed, &make_table(&listed))
        }
        Users::Create(user) => create(user),
        Users::Deactivate(user) => set_active(user, false),
        Users::Activate(user) => set_active(user, true),
        Users::Delete { user, yes } => delete(user, yes),
        Users::SignOut(arguments) => sign_out(arguments),
        Users::SetPassword { user, passwords } => set_password(user, &passwords),
    }
}

fn create(user: NewUser) -> anyhow::Result<()> {
    let hasher = make_hasher(&user.passwords)?;
    let database = open_database(user.database)?;
    let password = read_password()?;
    let password = password.expose_secret();
    let fields = [
        ("username", user.username.as_str()),
        ("email", &user.email),
        ("first_name", &user.first_name),
        ("last_name", &user.last_name),
        ("password", password),
        ("password2", password),
    ];
    let created = register_account(&fields, with_deadline(&database), &hasher)?;
    let line = format!("user {} created: {}", created.id, user.username.trim());
    user.output.print(&created, &[line])
}

fn set_active(user: ExistingUser, is_active: bool) -> anyhow::Result<()> {
    let database = open_database(user.common.database)?;
    let found = find_user(&database, &user.username)?;
    let is_changed = users::set_active(with_deadline(&database), found.id, is_active)?;
    ensure!(is_changed, DELETED_MEANWHILE);
    let state = if is_active { "active" } else { "deactivated" };
    let line = format!("{} is {state}", user.username);
    let changed = json!({ "id": found.id, "username": user.username, "is_active": is_active });
    user.common.output.print(&changed, &[line])
}

fn sign_out(arguments: SignedOut) -> anyhow::Result<()> {
    let database = open_database(arguments.common.database)?;
    let username = arguments.username.as_deref();
    let found = username
        .map(|username| find_user(&database, username))
        .transpose()?;
    let user_count = users::sign_out(with_deadline(&database), found.map(|user| user.id))?;
    let line = match username {
        Some(_) if user_count == 0 => bail!(DELETED_MEANWHILE),
        Some(username) => format!("{username} is signed out"),
        None => format!("{user_count} users are signed out"),
    };
    let signed_out = json!({ "user_count": user_count });
    arguments.common.output.print(&signed_out, &[line])
}

fn delete(user: ExistingUser, is_confirmed: bool) -> anyhow::Result<()> {
    let database = open_database(user.common.database)?;
    let found = find_user(&database, &user.username)?;
    if !is_confirmed {
        confirm(&format!(
            "Delete the user {:?} and all their movies? [y/N] ",
            user.username
        ))?;
    }
    let deletion = account_deletion::delete(with_deadline(&database), found.id, None)?;
    let deletion = deletion.context(DELETED_MEANWHILE)?;
    if !deletion.is_complete {
        account_deletion::delete_remaining(&database, found.id).context(
            "the user is deleted, and `serve` deletes the movies that remain: this command failed",
        )?;
    }
    let movie_count = deletion.movie_count;
    let line = format!("{} and {movie_count} movies deleted", user.username);
    let deleted = json!({ "id": found.id, "username": user.username, "movie_count": movie_count });
    user.common.output.print(&deleted, &[line])
}

/// # Errors
/// Unless standard input is a terminal and the answer to the question is `y` or `yes`.
fn confirm(question: &str) -> anyhow::Result<()> {
    ensure!(
        io::stdin().is_terminal(),
        "nothing was deleted: standard input is not a terminal, so the flag --yes is required"
    );
    eprint!("{question}");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    let answer = answer.trim().to_lowercase();
    ensure!(
        answer == "y" || answer == "yes",
        "nothing was deleted: the answer was not y or yes"
    );
    Ok(())
}

fn set_password(user: ExistingUser, passwords: &PasswordSettings) -> anyhow::Result<()> {
    let hasher = make_hasher(passwords)?;
    let database = open_database(user.common.database)?;
    let found = find_user(&database, &user.username)?;
    let password = validate_password(read_password()?.expose_secret())?;
    let hash = hasher.hash(password.expose_secret(), Instant::now() + HASH_TIMEOUT)?;
    let is_changed = users::set_password_hash(with_deadline(&database), found.id, &hash, None)?;
    ensure!(is_changed, DELETED_MEANWHILE);
    let line = format!("{} has a new password", user.username);
    let is_active = found.is_active;
    let changed = json!({ "id": found.id, "username": user.username, "is_active": is_active });
    user.common.output.print(&changed, &[line])
}

/// Reads a password from the terminal, twice and without echo, or from the first line of a standard input that is not a
/// terminal.
fn read_password() -> anyhow::Result<SecretString> {
    if io::stdin().is_terminal() {
        let password = rpassword::prompt_password("Password: ")?;
        let again = rpassword::prompt_password("Password again: ")?;
        ensure!(
            password == again,
            "the two passwords differ: enter the same password twice"
        );
        return Ok(password.into());
    }
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.context("the password cannot be read from standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).into())
}

/// # Errors
/// If a sign-in could not verify a hash of this cost in time; `serve` rejects the same setting.
fn make_hasher(settings: &PasswordSettings) -> anyhow::Result<Hasher> {
    check_cost(settings.bcrypt_cost)?;
    Ok(Hasher::new(HashingOptions {
        bcrypt_cost: settings.bcrypt_cost,
        // This process hashes one password, which never waits for another.
        max_waiting: 0,
    }))
}

/// Aligns the users in columns. Control characters are escaped, since a terminal would act on them.
fn make_table(users: &[UserSummary]) -> Vec<String> {
    let header = ["ID", "USERNAME", "EMAIL", "ACTIVE", "JOINED", "MOVIES"].map(str::to_owned);
    let rows = users.iter().map(|user| {
        [
            user.id.to_string(),
            user.username.escape_debug().to_string(),
            user.email.escape_debug().to_string(),
            if user.is_active { "yes" } else { "no" }.to_owned(),
            user.date_joined.clone(),
            user.movie_count.to_string(),
        ]
    });
    let rows: Vec<_> = std::iter::once(header).chain(rows).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths);
        let padded = cells.map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect()
}
