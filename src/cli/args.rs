//! Parses command-line arguments and environment variables into one command with its settings.
//!
//! No other module reads the environment. An error is one line of text, which repeats no value that may be a secret.
mod misspelled;
mod usage_error;

use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use super::check::Check;
use super::common::CommonArguments;
use super::import_django::ImportDjango;
use super::print::Print;
use super::recount::Recount;
use super::token::Token;
use super::users::Users;
use crate::config::{HIDDEN, Settings, is_public, raw_value};

/// REST service that stores the movies of registered users in PostgreSQL.
///
/// Each setting is an environment variable or a flag of the same name; the flag takes precedence. White space around a
/// value is ignored, and an empty variable or flag counts as unset. Without a command, the program serves; each command
/// takes the settings that it uses.
#[derive(Parser)]
#[command(
    name = "movies-api",
    version,
    args_conflicts_with_subcommands = true,
    override_usage = "movies-api [COMMAND] [OPTIONS]"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// A command with its settings.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve HTTP requests until SIGTERM or SIGINT; the default command
    Serve(Box<Settings>),

    /// Apply the pending migrations to the database, as `serve` does when it starts
    Migrate(CommonArguments),

    /// List, create, change and delete users
    #[command(subcommand)]
    Users(Users),

    /// Print an access token for a user, for scripts
    Token(Token),

    /// Check the settings and the database without changing anything; fails if the service would not start or not work
    Check(Box<Check>),

    /// Print a file for a deployment, filled in with the settings of this installation but without secrets
    Print(Box<Print>),

    /// Compare the stored counts with the rows and correct them, for example after rows were loaded by other means
    Recount(Recount),

    /// Import the users and movies of the Django application that this service replaces, all or nothing
    ImportDjango(ImportDjango),

    /// Print the script with which a shell completes this program's commands and flags
    Completions {
        /// Shell to print the script for
        shell: Shell,
    },
}

/// The parsed arguments and environment.
pub struct CommandLine {
    /// The command with its settings.
    pub command: Command,
    /// Every setting of the command that has a value.
    pub effective_settings: Vec<EffectiveSetting>,
    /// One line for each environment variable that is ignored but looks like a setting.
    pub warnings: Vec<String>,
}

/// A setting's value and where it comes from, safe to log.
pub struct EffectiveSetting {
    /// Name of the environment variable.
    pub name: String,
    /// The value, or `(hidden)` if it may be a secret.
    pub value: String,
    /// `default`, `environment` or `flag`.
    pub source: &'static str,
}

/// Parses `arguments`, of which the first is the program's name, and the environment. Exits the process after printing
/// the text of `--help` or `--version`.
///
/// # Errors
/// One line that names the argument or variable, its value and what is allowed.
pub fn parse(mut arguments: Vec<OsString>) -> Result<CommandLine, String> {
    let first = arguments.get(1).map(|argument| argument.to_string_lossy());
    let mut command = Arguments::command();
    match first.as_deref() {
        Some("-h" | "--help") => command = full_command(),
        Some("help") if arguments.len() == 2 => {
            arguments.truncate(1);
            arguments.push("--help".into());
            command = full_command();
        }
        Some("-V" | "--version") => {}
        Some(word) if !word.starts_with('-') => {}
        _ => arguments.insert(arguments.len().min(1), "serve".into()),
    }
    let mut command = without_empty_variables(command);
    let arguments = without_empty_flags(&command, arguments);
    let matches = command.try_get_matches_from_mut(arguments);
    let describe = |error: clap::Error| usage_error::describe(&error, &Arguments::command());
    let matches = matches.map_err(describe)?;
    let parsed = Arguments::from_arg_matches(&matches).map_err(describe)?;
    let effective_settings = effective_settings(&command, &matches);
    let bind = effective_settings
        .iter()
        .find(|setting| setting.name == "BIND")
        .map_or("", |setting| setting.value.as_str());
    Ok(CommandLine {
        warnings: misspelled::find(std::env::vars_os(), bind),
        command: parsed.command,
        effective_settings,
    })
}

/// The parser with all commands and, beside them, the settings of `serve`, which is the command if none is named.
pub fn full_command() -> clap::Command {
    let settings = Settings::augment_args(clap::Command::new("movies-api"));
    Arguments::augment_args(settings)
}

/// Hides the variables' values from `--help`, and makes the parser ignore variables that are empty.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| {
        let variable = argument.get_env().and_then(std::env::var_os);
        let argument = argument.hide_env_values(true);
        if variable.is_some_and(|value| is_blank(&value)) {
            argument.env(Resettable::Reset)
        } else {
            argument
        }
    });
    command.mut_subcommands(without_empty_variables)
}

fn is_blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| text.trim().is_empty())
}

/// Removes settings' flags with an empty value: `--name=`, and `--name` before an empty argument.
fn without_empty_flags(command: &clap::Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let mut command = command;
    let mut arguments = arguments.into_iter().peekable();
    let program_name = arguments.next();
    let mut kept: Vec<_> = program_name.into_iter().collect();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            kept.push(argument);
            break;
        }
        if let Some(subcommand) = command.find_subcommand(&argument) {
            command = subcommand;
        }
        let flag = argument.to_str().and_then(|text| text.strip_prefix("--"));
        let (name, value) = match flag.and_then(|flag| flag.split_once('=')) {
            Some((name, value)) => (Some(name), Some(value)),
            None => (flag, None),
        };
        let is_setting = command
            .get_arguments()
            .any(|known| name.is_some() && known.get_long() == name && known.get_env().is_some());
        let is_empty = match value {
            Some(value) => value.trim().is_empty(),
            None => is_setting && arguments.next_if(|value| is_blank(value)).is_some(),
        };
        if !(is_setting && is_empty) {
            kept.push(argument);
        }
    }
    kept.extend(arguments);
    kept
}

fn effective_settings(command: &clap::Command, matches: &ArgMatches) -> Vec<EffectiveSetting> {
    let (mut command, mut matches) = (command, matches);
    while let Some((name, inner)) = matches.subcommand() {
        matches = inner;
        command = command.find_subcommand(name).unwrap_or(command);
    }
    // An argument without a value and without a default has no source.
    let effective = command.get_arguments().filter_map(|argument| {
        let id = argument.get_id().as_str();
        Some(EffectiveSetting {
            name: id.to_uppercase(),
            value: match is_public(argument) {
                true => raw_value(matches, id),
                false => HIDDEN.to_owned(),
            },
            source: match matches.value_source(id)? {
                ValueSource::CommandLine => "flag",
                ValueSource::EnvVariable => "environment",
                _ => "default",
            },
        })
    });
    effective.collect()
}
