//! Every setting: environment and flags, defaults, units, bounds. The only room that reads the environment.
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser};
use ipnet::IpNet;
use log::LevelFilter;

use crate::api::{Origin, Visibility};
use crate::store::Database;

/// Keeps movies for signed-in users: a REST service on PostgreSQL.
///
/// Each setting is an environment variable or a flag of the same name; the flag wins, and an empty variable
/// counts as unset.
#[derive(Debug, Parser)]
#[command(name = "movies-api", version, disable_help_subcommand = true)]
pub struct Settings {
    /// Address and port to listen on
    #[arg(long, env, default_value = "0.0.0.0:8000", hide_env_values = true, value_parser = parse_address)]
    pub bind: SocketAddr,

    /// PostgreSQL to keep the data in: a URL or key=value pairs, as libpq takes them
    #[arg(long, env, hide_env_values = true, value_parser = parse_database_url)]
    pub database_url: Database,

    /// Secret that signs the tokens; 32 bytes or more are advised
    #[arg(long, env, hide_env_values = true)]
    pub secret_key: String,

    /// Former secrets whose tokens are still accepted, separated by commas
    #[arg(long, env, hide_env_values = true, value_delimiter = ',')]
    pub secret_key_fallbacks: Vec<String>,

    /// How long an access token is good, in seconds
    #[arg(long, env, default_value = "3600", hide_env_values = true, value_name = "SECONDS", value_parser = parse_lifetime)]
    pub access_token_lifetime: Duration,

    /// How long a refresh token is good, in seconds
    #[arg(long, env, default_value = "86400", hide_env_values = true, value_name = "SECONDS", value_parser = parse_lifetime)]
    pub refresh_token_lifetime: Duration,

    /// Whose movies a user may read
    #[arg(long, env, default_value = "own", hide_env_values = true)]
    pub movies_visibility: Visibility,

    /// Cost of a password's bcrypt hash, 4 to 31: it takes 2^cost rounds
    #[arg(long, env, default_value = "10", hide_env_values = true, value_name = "COST", value_parser = parse_between::<4, 31>)]
    pub bcrypt_cost: u32,

    /// Threads that handle requests, 2 to 1024
    #[arg(long, env, default_value = "96", hide_env_values = true, value_name = "THREADS", value_parser = parse_between::<2, 1024>)]
    pub workers: u32,

    /// Clients' connections open at once, 16 to 1000000; by default what the limit of open files leaves, up to 65536
    #[arg(long, env, hide_env_values = true, value_name = "CONNECTIONS", value_parser = parse_between::<16, 1_000_000>)]
    pub max_connections: Option<u32>,

    /// Connections to PostgreSQL, 1 to 1000
    #[arg(long, env, default_value = "8", hide_env_values = true, value_name = "CONNECTIONS", value_parser = parse_between::<1, 1000>)]
    pub db_pool_size: u32,

    /// Networks of proxies whose X-Forwarded-Proto, X-Forwarded-Host and X-Request-Id are believed, separated by commas
    #[arg(long, env, hide_env_values = true, value_name = "NETWORKS", value_delimiter = ',', value_parser = parse_network)]
    pub trusted_proxies: Vec<IpNet>,

    /// Other sites whose scripts may read answers (CORS), such as https://app.example.com, separated by commas
    #[arg(long, env, hide_env_values = true, value_name = "ORIGINS", value_delimiter = ',', value_parser = parse_origin)]
    pub cors_origins: Vec<Origin>,

    /// How much is logged: off, error, warn, info, debug, trace
    #[arg(
        long,
        env,
        default_value = "info",
        hide_env_values = true,
        value_name = "LEVEL", value_parser = parse_level)]
    pub log_level: LevelFilter,
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

/// Secrets, and what may hold one: never shown, neither in force nor in an error.
const SECRET: [&str; 3] = ["database_url", "secret_key", "secret_key_fallbacks"];

impl Settings {
    /// The settings from the process's flags and environment, with a list of what is in force. Ends the process
    /// on `--help` and `--version`.
    ///
    /// # Errors
    /// One line that names the variable, the value and what is allowed.
    pub fn load() -> Result<(Settings, Vec<InForce>), String> {
        Settings::parse_from_flags(std::env::args_os())
    }

    fn parse_from_flags(
        flags: impl IntoIterator<Item = OsString>,
    ) -> Result<(Settings, Vec<InForce>), String> {
        let command = Settings::command().mut_args(|arg| {
            let is_empty = arg
                .get_env()
                .and_then(std::env::var_os)
                .is_some_and(|value| value.is_empty());
            if is_empty {
                arg.env(Resettable::Reset)
            } else {
                arg
            }
        });
        let matches = command.try_get_matches_from(flags).map_err(describe)?;
        let settings = Settings::from_arg_matches(&matches).map_err(describe)?;
        let in_force = matches
            .ids()
            .map(|id| id.as_str())
            .filter(|id| *id != "Settings")
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
            .collect();
        Ok((settings, in_force))
    }
}

/// The parser's error as one line. Help and version are printed, and end the process.
fn describe(error: clap::Error) -> String {
    let context = |kind| {
        let value = error.get(kind).map(ToString::to_string);
        value.unwrap_or_default()
    };
    let flag = context(ContextKind::InvalidArg);
    let name = flag
        .trim_start_matches('-')
        .split([' ', '='])
        .next()
        .unwrap_or_default()
        .replace('-', "_");
    let value = if SECRET.contains(&name.as_str()) {
        "(hidden)".to_owned()
    } else {
        context(ContextKind::InvalidValue)
    };
    let variable = name.to_uppercase();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
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
        ErrorKind::MissingRequiredArgument => {
            let missing: Vec<_> = flag
                .split_whitespace()
                .filter_map(|word| word.strip_prefix("--"))
                .map(|flag| flag.replace('-', "_").to_uppercase())
                .collect();
            let verb = if missing.len() == 1 { "is" } else { "are" };
            format!(
                "{} {verb} not set, without a default (see --help)",
                missing.join(" and ")
            )
        }
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.trim_start_matches("error: ").to_owned()
        }
    }
}

fn parse_database_url(text: &str) -> Result<Database, String> {
    text.parse().map_err(|reason: String| {
        format!("it is postgresql://user:password@host:port/database or key=value pairs ({reason})")
    })
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "it is an address and a port such as 127.0.0.1:8000 or [::]:8000".to_owned())
}

fn parse_level(text: &str) -> Result<LevelFilter, String> {
    text.parse()
        .map_err(|_| "it is one of off, error, warn, info, debug, trace".to_owned())
}

fn parse_between<const LEAST: u32, const MOST: u32>(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if (LEAST..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("it is a whole number, {LEAST} to {MOST}")),
    }
}

fn parse_lifetime(text: &str) -> Result<Duration, String> {
    // A century: far past any use, far below where a time in seconds could overflow.
    const LONGEST: u64 = 100 * 365 * 86_400;
    match text.parse() {
        Ok(seconds @ 1..=LONGEST) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("it is a whole number of seconds, 1 to {LONGEST}")),
    }
}

fn parse_origin(text: &str) -> Result<Origin, String> {
    text.parse()
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse()
        .or_else(|_| text.parse().map(|address: std::net::IpAddr| address.into()))
        .map_err(|_| "it is a list of networks such as 10.0.0.0/8,::1/128".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: &[&str]) -> Result<(Settings, Vec<InForce>), String> {
        let always = [
            "movies-api",
            "--database-url=host=/tmp",
            "--secret-key=opensesame",
        ];
        Settings::parse_from_flags(always.iter().chain(flags).map(OsString::from))
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
            assert_eq!(load(&[flag]).map(|_| ()), Err(told.to_owned()), "{flag}");
        }
    }

    #[test]
    fn secrets_are_neither_shown_in_force_nor_in_an_error() {
        let (settings, in_force) = load(&["--secret-key-fallbacks=old,older"]).unwrap();
        assert_eq!(settings.secret_key_fallbacks, ["old", "older"]);
        for setting in &in_force {
            assert!(!setting.value.contains("old") && !setting.value.contains("sesame"));
        }
        let flags = [
            "movies-api",
            "--secret-key=x",
            "--database-url=postgresql://me:hunter2@host:port/db",
        ];
        let told = Settings::parse_from_flags(flags.map(OsString::from));
        let told = told.map(|_| ()).unwrap_err();
        assert!(
            told.starts_with("DATABASE_URL=(hidden) is not allowed"),
            "{told}"
        );
        assert!(!told.contains("hunter2"), "{told}");
    }

    #[test]
    fn what_is_in_force_says_where_it_came_from() {
        let (_, in_force) = load(&["--bcrypt-cost=12"]).unwrap();
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
}
