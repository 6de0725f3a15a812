//! From flags and environment to one command with its settings, or one line that says what is wrong. The only room
//! that reads the environment.
use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser};

use crate::commands::Command;
use crate::settings::{SECRET, Settings};

/// Keeps movies for signed-in users: a REST service on PostgreSQL.
///
/// Each setting is an environment variable or a flag of the same name; the flag wins, and an empty variable
/// counts as unset. Without a command it serves; each command takes those settings that it uses.
#[derive(Parser)]
#[command(
    name = "movies-api",
    version,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    override_usage = "movies-api [COMMAND] [OPTIONS]"
)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

/// What was asked for.
pub struct CommandLine {
    /// The command with its settings.
    pub command: Command,
    /// What the command's settings are, and where each came from.
    pub in_force: Vec<InForce>,
}

/// A setting in force, fit to be logged: nothing secret is in it.
pub struct InForce {
    /// The environment variable's name.
    pub name: String,
    /// Its value, or a word in place of a secret.
    pub value: String,
    /// `default`, `environment` or `flag`.
    pub source: &'static str,
}

/// The command that these arguments, the program's name first, and the environment ask for. Ends the process on
/// `--help` and `--version`.
///
/// # Errors
/// One line that names the variable, the value and what is allowed.
pub fn read(mut arguments: Vec<OsString>) -> Result<CommandLine, String> {
    let first = arguments.get(1).map(|argument| argument.to_string_lossy());
    let command = match first.as_deref() {
        Some("-h" | "--help") => describe_commands(),
        Some(word) if !word.starts_with('-') => Flags::command(),
        Some("-V" | "--version") => Flags::command(),
        _ => {
            arguments.insert(arguments.len().min(1), "serve".into());
            Flags::command()
        }
    };
    let matches = without_empty_variables(command)
        .try_get_matches_from(arguments)
        .map_err(describe)?;
    Ok(CommandLine {
        in_force: list_in_force(&matches),
        command: Flags::from_arg_matches(&matches).map_err(describe)?.command,
    })
}

/// All that the command line knows: the commands, and beside them the settings of the one that is meant where none is
/// named.
pub fn describe_commands() -> clap::Command {
    let about = Flags::command();
    let (short, long) = (about.get_about().cloned(), about.get_long_about().cloned());
    Settings::augment_args(about)
        .about(short.unwrap_or_default())
        .long_about(long.unwrap_or_default())
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| {
        let variable = argument.get_env().and_then(std::env::var_os);
        if variable.is_some_and(|value| value.is_empty()) {
            argument.env(Resettable::Reset)
        } else {
            argument
        }
    });
    command.mut_subcommands(without_empty_variables)
}

fn list_in_force(matches: &ArgMatches) -> Vec<InForce> {
    let mut matches = matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    let ids = matches.ids().map(|id| id.as_str());
    // Beside the settings stand their groups, named as their structs.
    ids.filter(|id| !id.starts_with(char::is_uppercase))
        .map(|id| InForce {
            name: id.to_uppercase(),
            value: if SECRET.contains(&id) {
                "(hidden)".to_owned()
            } else {
                let values = matches.get_raw(id).into_iter().flatten();
                let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
                values.join(",")
            },
            source: match matches.value_source(id) {
                Some(ValueSource::CommandLine) => "flag",
                Some(ValueSource::EnvVariable) => "environment",
                _ => "default",
            },
        })
        .collect()
}

/// The parser's error as one line. Help and version are printed, and end the process.
fn describe(error: clap::Error) -> String {
    let context = |kind| {
        let value = error.get(kind).map(ToString::to_string);
        value.unwrap_or_default()
    };
    let argument = context(ContextKind::InvalidArg);
    let name = argument
        .trim_start_matches(['-', '<'])
        .split([' ', '=', '>'])
        .next()
        .unwrap_or_default()
        .replace('-', "_")
        .to_lowercase();
    let value = if SECRET.contains(&name.as_str()) {
        "(hidden)".to_owned()
    } else {
        context(ContextKind::InvalidValue)
    };
    let variable = name.to_uppercase();
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            format!(
                "{variable}={value} is not allowed: {}",
                reason.unwrap_or_default()
            )
        }
        ErrorKind::InvalidValue => {
            let allowed = context(ContextKind::ValidValue);
            format!("{variable}={value} is not allowed: it is one of {allowed}")
        }
        ErrorKind::MissingRequiredArgument => describe_missing(&argument),
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.trim_start_matches("error: ").to_owned()
        }
    }
}

/// `missing` is the parser's list, such as `--database-url <DATABASE_URL>, <USERNAME>`.
fn describe_missing(missing: &str) -> String {
    let (settings, places): (Vec<_>, Vec<_>) = missing
        .split(", ")
        .partition(|argument| argument.starts_with("--"));
    if let [place, ..] = places.as_slice() {
        return format!("the argument {place} is missing (see --help)");
    }
    let variables: Vec<_> = settings
        .iter()
        .filter_map(|setting| setting.split_whitespace().next()?.strip_prefix("--"))
        .map(|flag| flag.replace('-', "_").to_uppercase())
        .collect();
    let verb = if variables.len() == 1 { "is" } else { "are" };
    format!(
        "{} {verb} not set, without a default (see --help)",
        variables.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn read_flags(flags: &[&str]) -> Result<CommandLine, String> {
        let program = ["movies-api"].iter();
        read(program.chain(flags).map(OsString::from).collect())
    }

    fn serve(flags: &[&str]) -> Result<(Settings, Vec<InForce>), String> {
        let always = ["--database-url=host=/tmp", "--secret-key=opensesame"];
        match read_flags(&[&always, flags].concat())? {
            CommandLine {
                command: Command::Serve(settings),
                in_force,
            } => Ok((*settings, in_force)),
            other => panic!("{:?}", other.command),
        }
    }

    #[test]
    fn a_bad_value_is_named_with_its_variable_and_what_is_allowed() {
        for (flag, told) in [
            (
                "--bcrypt-cost=3",
                "BCRYPT_COST=3 is not allowed: it is a whole number, 4 to 31",
            ),
            (
                "--bcrypt-cost=x",
                "BCRYPT_COST=x is not allowed: it is a whole number, 4 to 31",
            ),
            (
                "--bind=here",
                "BIND=here is not allowed: it is an address and a port such as 127.0.0.1:8000 or [::]:8000",
            ),
            (
                "--movies-visibility=all",
                "MOVIES_VISIBILITY=all is not allowed: it is one of own, shared",
            ),
            (
                "--access-token-lifetime=0",
                "ACCESS_TOKEN_LIFETIME=0 is not allowed: it is a whole number of seconds, 1 to 3153600000",
            ),
            (
                "--trusted-proxies=10.0.0.0/8,x",
                "TRUSTED_PROXIES=x is not allowed: it is a list of networks such as 10.0.0.0/8,::1/128",
            ),
            ("--nonsense", "unexpected argument '--nonsense' found"),
        ] {
            assert_eq!(serve(&[flag]).map(|_| ()), Err(told.to_owned()), "{flag}");
        }
    }

    #[test]
    fn secrets_are_neither_shown_in_force_nor_in_an_error() {
        let (settings, in_force) = serve(&["--secret-key-fallbacks=old,older"]).unwrap();
        assert_eq!(settings.tokens.secret_key_fallbacks, ["old", "older"]);
        for setting in &in_force {
            assert!(!setting.value.contains("old") && !setting.value.contains("sesame"));
        }
        let flags = [
            "--secret-key=x",
            "--database-url=postgresql://me:hunter2@host:port/db",
        ];
        let told = read_flags(&flags).map(|_| ()).unwrap_err();
        assert!(
            told.starts_with("DATABASE_URL=(hidden) is not allowed"),
            "{told}"
        );
        assert!(!told.contains("hunter2"), "{told}");
    }

    #[test]
    fn what_is_in_force_says_where_it_came_from() {
        let (_, in_force) = serve(&["--bcrypt-cost=12"]).unwrap();
        let of = |name: &str| {
            in_force
                .iter()
                .find(|setting| setting.name == name)
                .unwrap()
        };
        assert_eq!(
            (of("BCRYPT_COST").value.as_str(), of("BCRYPT_COST").source),
            ("12", "flag")
        );
        assert_eq!(of("BIND").value, "0.0.0.0:8000");
        assert_eq!(of("LOG_LEVEL").source, "default");
    }

    #[test]
    fn a_command_asks_for_the_settings_it_uses() {
        for (flags, told) in [
            (
                ["serve"],
                "DATABASE_URL and SECRET_KEY are not set, without a default (see --help)",
            ),
            (
                ["migrate"],
                "DATABASE_URL is not set, without a default (see --help)",
            ),
            (
                ["completions"],
                "the argument <SHELL> is missing (see --help)",
            ),
            (["sevre"], "unrecognized subcommand 'sevre'"),
        ] {
            assert_eq!(read_flags(&flags).map(|_| ()), Err(told.to_owned()));
        }
    }
}
