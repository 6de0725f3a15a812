//! Describes the parser's errors in one line each, without repeating a value that may be a secret.
use clap::error::{ContextKind, ErrorKind};

use crate::config::{HIDDEN, is_public};

/// Describes the error in one line. Help and version are "errors" of the parser too: they are printed, and the process
/// exits.
///
/// `command` defines all commands, with the variables of their settings.
pub fn describe(error: &clap::Error, command: &clap::Command) -> String {
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
    let value = match context(ContextKind::InvalidValue) {
        value if is_public_in_all_commands(command, &name) => value,
        _ => HIDDEN.to_owned(),
    };
    let variable = name.to_uppercase();
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error).map(ToString::to_string);
            let name = match argument.split_whitespace().next() {
                Some(flag) if flag.starts_with("--") && !is_setting(command, &name) => flag,
                _ => &variable,
            };
            format!(
                "{name}={value} is not allowed: {}",
                reason.unwrap_or_default()
            )
        }
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
            format!("{argument} has no value (see --help)")
        }
        ErrorKind::InvalidValue => {
            let allowed = context(ContextKind::ValidValue);
            format!("{variable}={value} is not allowed: must be one of {allowed}")
        }
        ErrorKind::MissingRequiredArgument => describe_missing(&argument, command),
        ErrorKind::TooManyValues => format!("{argument} takes no further value (see --help)"),
        ErrorKind::UnknownArgument => match argument.strip_prefix("--") {
            Some(flag) if looks_like_name(flag) => {
                format!("unexpected argument '{argument}' found (see --help)")
            }
            _ => "unexpected argument or unknown flag (see --help)".to_owned(),
        },
        ErrorKind::InvalidSubcommand => match context(ContextKind::InvalidSubcommand) {
            given if looks_like_name(&given) => {
                format!("unrecognized subcommand '{given}' (see --help)")
            }
            _ => "the first argument is not a command (see --help)".to_owned(),
        },
        // The first line of the other errors contains names of arguments but no values.
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.trim_start_matches("error: ").to_owned()
        }
    }
}

/// Whether arguments of this name exist and the value of each, in every command, is public.
fn is_public_in_all_commands(command: &clap::Command, name: &str) -> bool {
    let named = arguments_named(command, name);
    !named.is_empty() && named.into_iter().all(is_public)
}

/// Whether any command reads an argument of this name from the environment too.
fn is_setting(command: &clap::Command, name: &str) -> bool {
    let mut named = arguments_named(command, name).into_iter();
    named.any(|argument| argument.get_env().is_some())
}

fn arguments_named<'a>(command: &'a clap::Command, name: &str) -> Vec<&'a clap::Arg> {
    let own = command.get_arguments();
    let own = own.filter(|argument| argument.get_id() == name);
    let subcommands = command.get_subcommands();
    own.chain(subcommands.flat_map(|subcommand| arguments_named(subcommand, name)))
        .collect()
}

/// Whether the text could be a misspelled name of a command or flag, which may be repeated; passwords and connection
/// strings rarely look like one.
fn looks_like_name(text: &str) -> bool {
    text.len() <= 24
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-' || byte == b'_')
}

/// Describes the arguments in `missing`, the parser's list such as `--database-url <DATABASE_URL>, <USERNAME>`. A
/// setting is named by its variable, any other argument as it is written on the command line.
fn describe_missing(missing: &str, command: &clap::Command) -> String {
    let mut arguments = missing.split(", ");
    let flags = arguments.clone();
    if let Some(positional) = arguments.find(|argument| !argument.starts_with("--")) {
        return format!("the argument {positional} is missing (see --help)");
    }
    let mut variables = Vec::new();
    for flag in flags.filter_map(|argument| argument.split_whitespace().next()) {
        let name = flag.trim_start_matches('-').replace('-', "_");
        if !is_setting(command, &name) {
            return format!("the flag {flag} is missing (see --help)");
        }
        variables.push(name.to_uppercase());
    }
    match variables.as_slice() {
        [variable] => format!("{variable} is not set and has no default (see --help)"),
        _ => format!(
            "{} are not set and have no default (see --help)",
            variables.join(" and ")
        ),
    }
}
