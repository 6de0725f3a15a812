//! From flags and environment to one command with its settings, or one line that says what is wrong. The only room
//! that reads the environment.
use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser};

use crate::cli::Command;
use crate::config::{Settings, is_shown};

/// In place of a value that may be a secret.
const HIDDEN: &str = "(hidden)";

/// Keeps movies for signed-in users: a REST service on PostgreSQL.
///
/// Each setting is an environment variable or a flag of the same name; the flag wins. White space around a value is no
/// part of it, and an empty variable or flag counts as unset. Without a command it serves; each command takes those settings that it uses.
#[derive(Parser)]
#[command(
    name = "movies-api",
    version,
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
    /// Variables that look like a setting and are none, each with what to do.
    pub warnings: Vec<String>,
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
        Some("help") if arguments.len() == 2 => {
            arguments.truncate(1);
            arguments.push("--help".into());
            describe_commands()
        }
        Some(word) if !word.starts_with('-') => Flags::command(),
        Some("-V" | "--version") => Flags::command(),
        _ => {
            arguments.insert(arguments.len().min(1), "serve".into());
            Flags::command()
        }
    };
    let mut command = without_empty_variables(command);
    let arguments = without_empty_flags(&command, arguments);
    let matches = command.try_get_matches_from_mut(arguments);
    let matches = matches.map_err(|error| describe(&error, &command))?;
    let read = Flags::from_arg_matches(&matches).map_err(|error| describe(&error, &command))?;
    let in_force = list_in_force(&command, &matches);
    let bind = in_force.iter().find(|setting| setting.name == "BIND");
    let bind = bind.map_or("", |setting| setting.value.as_str());
    Ok(CommandLine {
        warnings: find_misspelt(std::env::vars_os(), bind),
        command: read.command,
        in_force,
    })
}

/// A warning for each variable that was probably meant as a setting: one with a setting's name but for a letter or two,
/// and `PORT`, which other programs read, if `bind` has another port.
fn find_misspelt(variables: impl Iterator<Item = (OsString, OsString)>, bind: &str) -> Vec<String> {
    let settings = Settings::command();
    let known: Vec<_> = settings
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str())
        .collect();
    let mut warnings = Vec::new();
    for (name, value) in variables {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
            continue;
        };
        if known.contains(&name) || value.trim().is_empty() {
            continue;
        }
        if name == "PORT" && !bind.ends_with(&format!(":{}", value.trim())) {
            warnings.push(
                "the variable PORT is not read: BIND sets the address and the port, such as BIND=0.0.0.0:8000"
                    .to_owned(),
            );
        }
        if let Some(meant) = known.iter().find(|known| is_misspelt(name, known)) {
            warnings.push(format!(
                "the variable {name} is not read: is {meant} meant?"
            ));
        }
    }
    warnings.sort();
    warnings
}

/// Whether the name is the setting's with other capitals or separators, or with a few letters wrong: two of a long
/// name's, one of a name of 6 to 9, and of a shorter one two letters that changed places, since usual variables such as
/// BIN are too near.
fn is_misspelt(name: &str, setting: &str) -> bool {
    let normalize = |name: &str| name.to_uppercase().replace(['_', '-'], "");
    let upper = name.to_uppercase();
    if normalize(name) == normalize(setting) {
        return true;
    }
    let distance = strsim::osa_distance(&upper, setting);
    match setting.len() {
        0..6 => {
            let sorted = |name: &str| {
                let mut letters: Vec<_> = name.chars().collect();
                letters.sort_unstable();
                letters
            };
            distance == 1 && sorted(&upper) == sorted(setting)
        }
        6..10 => distance == 1,
        _ => distance <= 2,
    }
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
        // `--help` shows no variable's value, whatever the setting's declaration says.
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

/// The arguments without the flags of settings whose value is empty: `--name=`, and `--name` before an empty argument.
fn without_empty_flags(command: &clap::Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let mut command = command;
    let mut arguments = arguments.into_iter().peekable();
    // The program's own name.
    let mut kept: Vec<_> = arguments.next().into_iter().collect();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            kept.push(argument);
            break;
        }
        if let Some(inner) = command.find_subcommand(&argument) {
            command = inner;
        }
        let flag = argument.to_str().and_then(|text| text.strip_prefix("--"));
        let (name, value) = match flag.map(|flag| flag.split_once('=').ok_or(flag)) {
            Some(Ok((name, value))) => (Some(name), Some(value)),
            Some(Err(name)) => (Some(name), None),
            None => (None, None),
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

fn list_in_force(command: &clap::Command, matches: &ArgMatches) -> Vec<InForce> {
    let (mut command, mut matches) = (command, matches);
    while let Some((name, inner)) = matches.subcommand() {
        matches = inner;
        command = command.find_subcommand(name).unwrap_or(command);
    }
    // An argument without a value and a default has no source.
    let given = command
        .get_arguments()
        .filter_map(|argument| Some((argument, matches.value_source(argument.get_id().as_str())?)));
    given
        .map(|(argument, source)| InForce {
            name: argument.get_id().as_str().to_uppercase(),
            value: if is_shown(argument) {
                let values = matches.get_raw(argument.get_id().as_str());
                let values = values.into_iter().flatten();
                let values = values.map(|value| value.to_string_lossy().trim().to_owned());
                values.collect::<Vec<_>>().join(",")
            } else {
                HIDDEN.to_owned()
            },
            source: match source {
                ValueSource::CommandLine => "flag",
                ValueSource::EnvVariable => "environment",
                _ => "default",
            },
        })
        .collect()
}

/// The parser's error as one line, which repeats no value that may be a secret. Help and version are printed, and end the
/// process.
fn describe(error: &clap::Error, command: &clap::Command) -> String {
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
        value if is_shown_everywhere(command, &name) => value,
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
                Some(flag) if flag.starts_with("--") && !is_setting(&Flags::command(), &name) => {
                    flag
                }
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
            format!("{variable}={value} is not allowed: it is one of {allowed}")
        }
        ErrorKind::MissingRequiredArgument => describe_missing(&argument),
        ErrorKind::TooManyValues => format!("{argument} takes no further value (see --help)"),
        ErrorKind::UnknownArgument => match argument.strip_prefix("--") {
            Some(flag) if is_word(flag) => format!("unexpected argument '{argument}' found"),
            _ => "an argument is one too many, or an unknown flag (see --help)".to_owned(),
        },
        ErrorKind::InvalidSubcommand => match context(ContextKind::InvalidSubcommand) {
            given if is_word(&given) => format!("unrecognized subcommand '{given}'"),
            _ => "the first argument is no command (see --help)".to_owned(),
        },
        // The others' first line names arguments and no values.
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.trim_start_matches("error: ").to_owned()
        }
    }
}

/// Whether every argument of this name, whatever the command, may be shown, and there is one.
fn is_shown_everywhere(command: &clap::Command, name: &str) -> bool {
    fn collect<'a>(command: &'a clap::Command, name: &str, found: &mut Vec<&'a clap::Arg>) {
        let arguments = command.get_arguments();
        found.extend(arguments.filter(|argument| argument.get_id() == name));
        for inner in command.get_subcommands() {
            collect(inner, name, found);
        }
    }
    let mut found = Vec::new();
    collect(command, name, &mut found);
    !found.is_empty() && found.into_iter().all(is_shown)
}

/// Whether it can be a command's or a flag's name that was misspelt; a password or an address of a database seldom is.
fn is_word(text: &str) -> bool {
    text.len() <= 24
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-' || byte == b'_')
}

/// `missing` is the parser's list, such as `--database-url <DATABASE_URL>, <USERNAME>`. Of these only the settings are
/// variables too.
fn describe_missing(missing: &str) -> String {
    let command = Flags::command();
    let (flags, positions): (Vec<_>, Vec<_>) = missing
        .split(", ")
        .partition(|argument| argument.starts_with("--"));
    if let [position, ..] = positions.as_slice() {
        return format!("the argument {position} is missing (see --help)");
    }
    let flags = flags.iter().filter_map(|flag| {
        let flag = flag.split_whitespace().next()?;
        Some((flag, flag.trim_start_matches('-').replace('-', "_")))
    });
    let (settings, others): (Vec<_>, Vec<_>) =
        flags.partition(|(_, name)| is_setting(&command, name));
    if let [(flag, _), ..] = others.as_slice() {
        return format!("the flag {flag} is missing (see --help)");
    }
    let variables: Vec<_> = settings
        .iter()
        .map(|(_, name)| name.to_uppercase())
        .collect();
    let verb = if variables.len() == 1 { "is" } else { "are" };
    format!(
        "{} {verb} not set, without a default (see --help)",
        variables.join(" and ")
    )
}

/// Whether an argument of this name is read from the environment, in whatever command.
fn is_setting(command: &clap::Command, name: &str) -> bool {
    let mut arguments = command.get_arguments();
    arguments.any(|argument| argument.get_id() == name && argument.get_env().is_some())
        || command
            .get_subcommands()
            .any(|inner| is_setting(inner, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    const KEY: &str = "--secret-key=opensesame-opensesame-opensesame";

    fn read_flags(flags: &[&str]) -> Result<CommandLine, String> {
        let program = ["movies-api"].iter();
        read(program.chain(flags).map(OsString::from).collect())
    }

    fn serve(flags: &[&str]) -> Result<(Settings, Vec<InForce>), String> {
        let always = ["--database-url=host=/tmp", KEY];
        match read_flags(&[&always, flags].concat())? {
            CommandLine {
                command: Command::Serve(settings),
                in_force,
                ..
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

    #[test]
    fn a_missing_flag_that_is_no_variable_is_named_as_a_flag() {
        for (flags, told) in [
            (
                &["users", "create", "ann"][..],
                "the flag --email is missing (see --help)",
            ),
            (
                &["users", "create", "ann", "--email=a@example.com"],
                "DATABASE_URL is not set, without a default (see --help)",
            ),
            (&["--bind"], "--bind <BIND> has no value (see --help)"),
        ] {
            assert_eq!(read_flags(flags).map(|_| ()), Err(told.to_owned()));
        }
    }

    #[test]
    fn white_space_around_a_value_is_no_part_of_it() {
        let (settings, in_force) = serve(&[
            "--bind= 127.0.0.1:81 ",
            "--movies-visibility= shared\n",
            "--workers=\t12",
            "--idle-timeout= 5 ",
            "--login-wait= 6 ",
            "--log-level= warn ",
            "--log-format= json ",
            "--server-timing= true ",
            "--trusted-proxies= 10.0.0.0/8 , ::1 ",
            "--cors-origins= https://a.example , https://b.example ",
            "--bcrypt-cost",
            " ",
        ])
        .unwrap();
        assert_eq!(settings.bind.to_string(), "127.0.0.1:81");
        assert_eq!((settings.workers, settings.server_timing), (12, true));
        assert_eq!(
            (settings.trusted_proxies.len(), settings.cors_origins.len()),
            (2, 2)
        );
        for setting in &in_force {
            assert_eq!(setting.value, setting.value.trim(), "{}", setting.name);
        }
        let cost = in_force
            .iter()
            .find(|setting| setting.name == "BCRYPT_COST");
        assert_eq!(cost.unwrap().source, "default");
    }

    #[test]
    fn a_variable_near_a_setting_is_told_and_usual_variables_are_not() {
        let find = |name: &str, value: &str| {
            let variables = [(OsString::from(name), OsString::from(value))];
            find_misspelt(variables.into_iter(), "0.0.0.0:8000")
        };
        for (name, meant) in [
            ("CORS_ORIGNS", "CORS_ORIGINS"),
            ("CORS_ORIGIN", "CORS_ORIGINS"),
            ("cors_origins", "CORS_ORIGINS"),
            ("CORS-ORIGINS", "CORS_ORIGINS"),
            ("TRUSTED_PROXY", ""),
            ("TRUSTED_PROXYS", "TRUSTED_PROXIES"),
            ("SECRETKEY", "SECRET_KEY"),
            ("SERCET_KEY", "SECRET_KEY"),
            ("DATABSE_URL", "DATABASE_URL"),
            ("WORKER", "WORKERS"),
            ("LOGLEVEL", "LOG_LEVEL"),
            ("LOG_LEVELS", "LOG_LEVEL"),
            ("BNID", "BIND"),
        ] {
            let told = find(name, "x");
            let expected = match meant {
                "" => Vec::new(),
                meant => vec![format!(
                    "the variable {name} is not read: is {meant} meant?"
                )],
            };
            assert_eq!(told, expected, "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "HOST",
            "HOSTNAME",
            "USER",
            "LOGNAME",
            "SHELL",
            "TERM",
            "LANG",
            "PWD",
            "OLDPWD",
            "BIN",
            "BINDIR",
            "BINDING",
            "BIN_DIR",
            "KIND",
            "FIND",
            "BLIND",
            "EMAIL",
            "PORTS",
            "PGHOST",
            "PGPORT",
            "DATA_DIR",
            "DATABASE",
            "DATABASE_HOST",
            "SECRET",
            "SECRETS",
            "LOG",
            "LOG_FILE",
            "LOG_DIR",
            "DISPLAY",
            "INVOCATION_ID",
            "JOURNAL_STREAM",
            "MALLOC_ARENA_MAX",
            "RUST_LOG",
            "RUST_BACKTRACE",
            "SECRET_KEY_BASE",
            "KUBERNETES_PORT",
            "DJANGO_SECRET_KEY",
            "WEB_CONCURRENCY",
            "TIMEOUT",
            "NOTIFY_SOCKET",
            "LOGIN_URL",
            "MAIL",
            "XDG_SESSION_ID",
        ] {
            assert_eq!(find(name, "x"), Vec::<String>::new(), "{name}");
        }
        assert_eq!(find("CORS_ORIGNS", ""), Vec::<String>::new());
        assert_eq!(find("PORT", "9000").len(), 1);
        assert_eq!(find("PORT", "8000"), Vec::<String>::new());
    }
}
