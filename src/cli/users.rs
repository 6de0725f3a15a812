//! `users`: who there is, and what operators change of them. It is in force at once, on a service that runs too.
use std::io::{self, BufRead, IsTerminal};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::{BadSetting, Output, find_user, now, open_store};
use crate::api::{register_account, validate_password};
use crate::auth::bcrypt_cost::check_cost;
use crate::auth::password::{HASH_TIMEOUT, Hasher, HashingOptions};
use crate::config::{DatabaseSettings, PasswordSettings};
use crate::db::users::{self, Listed};

/// What is done with users.
#[derive(Debug, Subcommand)]
pub enum Users {
    /// List all users
    List {
        /// The database.
        #[command(flatten)]
        database: DatabaseSettings,
        /// How the answer looks.
        #[command(flatten)]
        output: Output,
    },
    /// Make a user, by the rules of a registration; the password is read from the terminal or from standard input
    Create(NewUser),
    /// Let a user sign in no longer; their tokens are refused from now on
    Deactivate(Named),
    /// Let a user sign in again
    Activate(Named),
    /// Delete a user and all their movies; asked on a terminal whether that is meant
    Delete {
        /// Whom.
        #[command(flatten)]
        user: Named,
        /// Do not ask; needed where standard input is no terminal
        #[arg(long)]
        yes: bool,
    },
    /// Give a user another password, read from the terminal or from standard input
    SetPassword {
        /// Whose.
        #[command(flatten)]
        user: Named,
        /// How it is hashed.
        #[command(flatten)]
        passwords: PasswordSettings,
    },
}

/// A user to be made.
#[derive(Args, Debug)]
pub struct NewUser {
    /// The name to sign in with
    username: String,
    /// E-mail address, nobody else's
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

/// A user who is there.
#[derive(Args, Debug)]
pub struct Named {
    /// The user's name
    username: String,
    #[command(flatten)]
    database: DatabaseSettings,
    #[command(flatten)]
    output: Output,
}

/// A user after a change.
#[derive(Serialize)]
struct Changed<'a> {
    id: i64,
    username: &'a str,
    is_active: bool,
}

/// A user who is no longer there.
#[derive(Serialize)]
struct Deleted<'a> {
    id: i64,
    username: &'a str,
    movie_count: i64,
}

/// Does it.
pub fn run(action: Users) -> anyhow::Result<()> {
    match action {
        Users::List { database, output } => {
            let listed = users::list(now(&open_store(database)?))?;
            output.print(&listed, &make_table(&listed))
        }
        Users::Create(user) => create(user),
        Users::Deactivate(user) => set_active(user, false),
        Users::Activate(user) => set_active(user, true),
        Users::Delete { user, yes } => delete(user, yes),
        Users::SetPassword { user, passwords } => set_password(user, &passwords),
    }
}

fn create(user: NewUser) -> anyhow::Result<()> {
    let hasher = make_hasher(&user.passwords)?;
    let store = open_store(user.database)?;
    let fields = [
        ("username", user.username.as_str()),
        ("email", &user.email),
        ("first_name", &user.first_name),
        ("last_name", &user.last_name),
    ];
    let password = read_password()?;
    let password = password.expose_secret();
    let passwords = [("password", password), ("password2", password)];
    let made = register_account(&[&fields[..], &passwords].concat(), now(&store), &hasher)?;
    let line = format!("user {} made: {}", made.id, user.username.trim());
    user.output.print(&made, &[line])
}

fn set_active(user: Named, is_active: bool) -> anyhow::Result<()> {
    let store = open_store(user.database)?;
    let found = find_user(&store, &user.username)?;
    users::set_active(now(&store), found.id, is_active)?;
    let word = if is_active { "may" } else { "may not" };
    let line = format!("{} {word} sign in", user.username);
    let changed = Changed {
        id: found.id,
        username: &user.username,
        is_active,
    };
    user.output.print(&changed, &[line])
}

fn delete(user: Named, is_confirmed: bool) -> anyhow::Result<()> {
    let store = open_store(user.database)?;
    let found = find_user(&store, &user.username)?;
    if !is_confirmed {
        confirm(&format!(
            "Delete the user {:?} and all their movies? [y/N] ",
            user.username
        ))?;
    }
    let movie_count = users::delete(now(&store), found.id)?;
    let movie_count = movie_count.context("the user was deleted by somebody else meanwhile")?;
    let line = format!("{} and {movie_count} movies deleted", user.username);
    let deleted = Deleted {
        id: found.id,
        username: &user.username,
        movie_count,
    };
    user.output.print(&deleted, &[line])
}

/// Fails unless the question is answered with `y` or `yes` on a terminal.
fn confirm(question: &str) -> anyhow::Result<()> {
    ensure!(
        io::stdin().is_terminal(),
        "nothing was deleted: where no terminal can be asked, give --yes"
    );
    eprint!("{question}");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    let answer = answer.trim().to_lowercase();
    ensure!(answer == "y" || answer == "yes", "nothing was deleted");
    Ok(())
}

fn set_password(user: Named, passwords: &PasswordSettings) -> anyhow::Result<()> {
    let hasher = make_hasher(passwords)?;
    let store = open_store(user.database)?;
    let found = find_user(&store, &user.username)?;
    let password = validate_password(read_password()?.expose_secret())?;
    let hash = hasher.hash(password.expose_secret(), Instant::now() + HASH_TIMEOUT)?;
    users::set_password_hash(now(&store), found.id, &hash, None)?;
    let line = format!("{} has a new password", user.username);
    let changed = Changed {
        id: found.id,
        username: &user.username,
        is_active: found.is_active,
    };
    user.output.print(&changed, &[line])
}

/// Typed twice without being shown, or the first line of a standard input that is no terminal.
fn read_password() -> anyhow::Result<SecretString> {
    if io::stdin().is_terminal() {
        let password = rpassword::prompt_password("Password: ")?;
        let again = rpassword::prompt_password("Password once more: ")?;
        ensure!(password == again, "the two passwords differ");
        return Ok(password.into());
    }
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.context("the password on standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).into())
}

/// Fails where the service, with the same settings, would not start: a hash of such a cost could not be verified in time.
fn make_hasher(settings: &PasswordSettings) -> anyhow::Result<Hasher> {
    check_cost(settings.bcrypt_cost).map_err(BadSetting)?;
    Ok(Hasher::new(HashingOptions {
        bcrypt_cost: settings.bcrypt_cost,
        // One at a time waits for nobody.
        max_waiting: 0,
    }))
}

/// Columns as wide as their widest cell. What a terminal would act on is escaped.
fn make_table(users: &[Listed]) -> Vec<String> {
    let head = ["ID", "USERNAME", "EMAIL", "ACTIVE", "JOINED", "MOVIES"].map(str::to_owned);
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
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
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
