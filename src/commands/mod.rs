//! What operators ask for on the command line: a room for each command, and what they share. Here and in main alone,
//! errors are chains of text (anyhow): a person reads them.
mod check;
mod migrate;
mod serve;

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use clap_complete::Shell;
use log::LevelFilter;
use serde::Serialize;

use crate::command_line::{InForce, describe_commands};
use crate::logging;
use crate::settings::{DatabaseSettings, Settings};

/// How long a command waits for a database that is not there yet.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A command with its settings.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until a signal ends it; what is done without a command
    Serve(Box<Settings>),

    /// Bring the database's schema up to date, as every start does
    Migrate {
        /// The database.
        #[command(flatten)]
        database: DatabaseSettings,
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

/// Runs the command to its end.
///
/// # Errors
/// What went wrong, for a person to read. A reader of the output that went away is no error.
pub fn run(command: Command, in_force: &[InForce]) -> anyhow::Result<()> {
    if !matches!(command, Command::Serve(_)) {
        logging::start(LevelFilter::Warn)?;
    }
    let outcome = match command {
        Command::Serve(settings) => serve::serve(*settings, in_force),
        Command::Migrate { database, output } => migrate::migrate(&database, &output),
        Command::Check { settings, output } => check::check(&settings, &output),
        Command::Completions { shell } => print_completions(shell),
    };
    match outcome {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        outcome => outcome,
    }
}

fn print_completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut describe_commands(), "movies-api", &mut script);
    Ok(io::stdout().write_all(&script)?)
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
