//! What several commands share: their output, and their access to the database.
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::config::DatabaseSettings;
use crate::db::users::Credentials;
use crate::db::{self, Database, Options, RequestDatabase, Timeouts};

/// How long a command tries to reach the database before it fails.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one statement of a command may take, and how long it may wait for a lock.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long one operation of a command may take: a wait for a connection and a statement, with time to spare.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The arguments of every command that uses a database and prints a result.
#[derive(Args, Debug)]
pub struct CommonArguments {
    #[command(flatten)]
    pub database: DatabaseSettings,
    #[command(flatten)]
    pub output: Output,
}

/// The format of a command's result on standard output.
#[derive(Args, Debug)]
pub struct Output {
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

impl Output {
    /// Prints `result` as JSON with `--json`, and `lines` without. Control characters in the lines are escaped, since a
    /// terminal would act on them.
    pub fn print<T: Serialize>(&self, result: &T, lines: &[String]) -> anyhow::Result<()> {
        let text = if self.json {
            serde_json::to_string(result)? + "\n"
        } else {
            lines.iter().map(|line| escape(line) + "\n").collect()
        };
        Ok(io::stdout().write_all(text.as_bytes())?)
    }
}

fn escape(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    for character in line.chars() {
        if character.is_control() {
            escaped.extend(character.escape_debug());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Opens the database for a command that executes single statements.
///
/// # Errors
/// If it cannot be reached in time, or its schema is not the one of this version.
pub fn open_database(settings: DatabaseSettings) -> Result<Database, db::Error> {
    db::check_schema(&settings.database_url, CONNECT_TIMEOUT)?;
    Ok(Database::open(Options {
        connection: settings.database_url,
        pool_size: 2,
        timeouts: Timeouts {
            checkout: Duration::from_secs(3),
            statement: STATEMENT_TIMEOUT,
            lock: STATEMENT_TIMEOUT,
        },
        max_batch: 1,
    }))
}

/// The database for one operation, which has to end within [`OPERATION_TIMEOUT`] from now.
pub fn with_deadline(database: &Database) -> RequestDatabase<'_> {
    database.with_deadline(Instant::now() + OPERATION_TIMEOUT)
}

/// # Errors
/// If no user has this name, or the database fails.
pub fn find_user(database: &Database, username: &str) -> anyhow::Result<Credentials> {
    let user = db::users::find_credentials(with_deadline(database), username)?;
    user.with_context(|| format!("no user has the name {username:?}"))
}
