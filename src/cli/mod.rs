//! The commands of the program, one per file.
//!
//! `args` parses the command line, [`run`] executes the parsed command, and `common` holds what several commands share.
//! Errors are `anyhow` chains here, since a person reads them; the modules below return error types of their own.
pub mod args;
mod check;
mod common;
mod completions;
mod import_django;
mod migrate;
mod print;
mod recount;
mod serve;
mod token;
mod users;

use std::io;

use log::LevelFilter;

use self::args::{Command, CommandLine};
pub use self::serve::open_app;
pub use crate::auth::bcrypt_cost::CostTooHigh;
use crate::telemetry::logging::{self, Format};

/// Executes the command, and returns when it is done.
///
/// # Errors
/// A chain of causes for a person to read. It is not an error if the reader of standard output closes it early.
pub fn run(command_line: CommandLine) -> anyhow::Result<()> {
    let CommandLine {
        command,
        effective_settings,
        warnings,
    } = command_line;
    if !matches!(command, Command::Serve(_)) {
        logging::start(LevelFilter::Warn.into(), Format::Text)?;
    }
    let outcome = match command {
        Command::Serve(settings) => serve::serve(*settings, &effective_settings, &warnings),
        Command::Migrate(arguments) => migrate::migrate(&arguments),
        Command::Users(action) => users::run(action),
        Command::Token(arguments) => token::print(arguments),
        Command::Check(arguments) => check::check(&arguments, warnings),
        Command::Print(arguments) => print::print(&arguments),
        Command::Recount(arguments) => recount::recount(&arguments),
        Command::ImportDjango(arguments) => import_django::import_django(arguments),
        Command::Completions { shell } => completions::print_completions(shell),
    };
    outcome.or_else(|error| match error.downcast_ref::<io::Error>() {
        Some(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    })
}
