//! What operators ask for on the command line: a room for each command, and what they share. Here and in main alone,
//! errors are chains of text (anyhow): a person reads them.
mod check;
pub mod command_line;
mod import_django;
mod migrate;
mod print;
mod recount;
mod serve;
mod token;
mod users;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use clap_complete::Shell;
use log::LevelFilter;
use serde::Serialize;

pub use self::serve::open_app;
use self::users::Users;
use crate::auth::bcrypt_cost::CostTooHigh;
use crate::auth::token::TokenKeys;
use crate::cli::command_line::{InForce, describe_commands};
use crate::config::{DatabaseSettings, Settings, TokenSettings, parse_database_url};
use crate::db::users::Credentials;
use crate::db::{self, Access, Database, Options, Store, Timeouts};
use crate::telemetry::logging::{self, Format};

/// How long a command waits for a database that is not there yet.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// How long the database may take for one statement of a command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);

/// A command with its settings.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until a signal ends it; what is done without a command
    Serve(Box<Settings>),

    /// Bring the database's schema up to date, as every start of the service does
    Migrate {
        /// The database.
        #[command(flatten)]
        database: DatabaseSettings,
        /// How the answer looks.
        #[command(flatten)]
        output: Output,
    },

    /// List users, make one, change what they may do
    #[command(subcommand)]
    Users(Users),

    /// Print an access token of a user, for scripts
    Token {
        /// The user's name
        username: String,
        /// The database.
        #[command(flatten)]
        database: DatabaseSettings,
        /// What signs it.
        #[command(flatten)]
        tokens: TokenSettings,
        /// How the answer looks.
        #[command(flatten)]
        output: Output,
    },

    /// Say whether the service would start: its settings, and what the database is and lacks; change nothing
    Check {
        /// All of them are judged.
        #[command(flatten)]
        settings: Box<Settings>,
        /// How the answer looks.
        #[command(flatten)]
        output: Output,
    },

    /// Print a file that a deployment needs, with the settings of this one filled in and no secret
    Print(Box<print::Print>),

    /// Compare the kept counts with the rows and correct what is wrong, as after a load of data by other means
    Recount {
        /// Change nothing, and exit with 1 if something is wrong
        #[arg(long)]
        check: bool,
        /// The database.
        #[command(flatten)]
        database: DatabaseSettings,
        /// How the answer looks.
        #[command(flatten)]
        output: Output,
    },

    /// Take over the users and movies of the Django application that this service replaces, all or nothing
    ImportDjango {
        /// Its PostgreSQL, as in DATABASE_URL; it is only read. A password is better kept in a passfile
        #[arg(value_parser = parse_database_url)]
        django_database_url: Database,
        /// Where to.
        #[command(flatten)]
        database: DatabaseSettings,
        /// How the answer looks.
        #[command(flatten)]
        output: Output,
    },

    /// Print what a shell needs to complete this program's flags
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// How an answer looks.
#[derive(Args, Debug)]
pub struct Output {
    /// Answer with one JSON document
    #[arg(long)]
    json: bool,
}

/// A setting that is well formed and cannot be met on this machine.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BadSetting(#[from] CostTooHigh);

/// Runs the command to its end.
///
/// # Errors
/// What went wrong, for a person to read. A reader of the output that went away is no error.
pub fn run(command: Command, in_force: &[InForce], warnings: &[String]) -> anyhow::Result<()> {
    if !matches!(command, Command::Serve(_)) {
        logging::start(LevelFilter::Warn.into(), Format::Text)?;
    }
    let outcome = match command {
        Command::Serve(settings) => serve::serve(*settings, in_force, warnings),
        Command::Migrate { database, output } => migrate::migrate(&database, &output),
        Command::Users(action) => users::run(action),
        Command::Token {
            username,
            database,
            tokens,
            output,
        } => token::print(&username, database, &tokens, &output),
        Command::Check { settings, output } => check::check(&settings, warnings, &output),
        Command::Print(asked) => print::print(&asked),
        Command::Recount {
            check,
            database,
            output,
        } => recount::recount(&database, check, &output),
        Command::ImportDjango {
            django_database_url,
            database,
            output,
        } => import_django::import_django(&django_database_url, &database, &output),
        Command::Completions { shell } => print_completions(shell),
    };
    match outcome {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        outcome => outcome,
    }
}

/// The database, whose schema is this version's, for a command that makes one change after another.
fn open_store(settings: DatabaseSettings) -> Result<Store, db::Error> {
    db::check_schema(&settings.database_url, START_DEADLINE)?;
    Ok(Store::open(Options {
        database: settings.database_url,
        pool_size: 2,
        timeouts: Timeouts {
            checkout: Duration::from_secs(3),
            statement: COMMAND_TIMEOUT,
            lock: COMMAND_TIMEOUT,
        },
        max_batch: 1,
    }))
}

/// The store for one change of a command.
fn now(store: &Store) -> Access<'_> {
    store.until(Instant::now() + 2 * COMMAND_TIMEOUT)
}

fn make_keys(settings: &TokenSettings) -> TokenKeys {
    TokenKeys::new(
        &settings.secret_key,
        settings.secret_key_fallbacks.iter().flatten(),
        settings.access_token_lifetime,
        settings.refresh_token_lifetime,
    )
}

/// The user of this name.
fn find_user(store: &Store, username: &str) -> anyhow::Result<Credentials> {
    let found = db::users::find_credentials(now(store), username)?;
    found.with_context(|| format!("no user has the name {username:?}"))
}

fn print_completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut describe_commands(), "movies-api", &mut script);
    let mut script = String::from_utf8(script)?;
    if shell == Shell::Bash {
        // clap_complete 4.6 replaces the hyphen of the program's name in one way where it enters a subcommand's state and
        // in another where it matches on it, so that no subcommand's flags are found.
        script = script.replace("movies__subcmd__api", "movies__api");
    }
    Ok(io::stdout().write_all(script.as_bytes())?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

impl Output {
    /// The answer on standard output: as JSON if that was asked for, else as these lines.
    fn print<T: Serialize>(&self, answer: &T, lines: &[String]) -> anyhow::Result<()> {
        let text = if self.json {
            serde_json::to_string(answer)? + "\n"
        } else {
            lines.iter().map(|line| format!("{line}\n")).collect()
        };
        Ok(io::stdout().write_all(text.as_bytes())?)
    }
}
