//! Every setting of the service: flag, environment variable, default, unit and validation.
//!
//! A field's name gives the flag (`--max-connections`) and the variable (`MAX_CONNECTIONS`); its doc comment is the
//! text of `--help`. The settings are grouped so that a command takes only those that it uses. Secrets are parsed into
//! types whose `Debug` does not show them, and `cli::args` hides the values of variables in `--help` for every
//! argument.
use std::any::TypeId;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{BoolValueParser, EnumValueParser, PossibleValue, TypedValueParser};
use clap::{ArgAction, ArgMatches, Args, Parser};
use ipnet::IpNet;

use crate::api::options::{Origin, Visibility};
use crate::auth::signing_key::{SigningKey, WeakKey};
use crate::db::ConnectionConfig;
use crate::telemetry::logging::{Format, Levels};

/// In seconds.
const DAY: u64 = 86_400;

/// In seconds: longer than any use, and far below where a time in seconds could overflow.
const CENTURY: u64 = 100 * 365 * DAY;

/// The settings of `serve`.
#[derive(Debug, Parser)]
#[allow(missing_docs)] // the groups are documented at their types
pub struct Settings {
    /// Address and port to listen on
    #[arg(long, env, default_value = "0.0.0.0:8000", value_parser = parse_address)]
    pub bind: SocketAddr,

    #[command(flatten)]
    pub database: DatabaseSettings,

    #[command(flatten)]
    pub tokens: TokenSettings,

    /// Whose movies a user may read
    #[arg(long, env, default_value = "own", value_parser = Trimmed(EnumValueParser::<Visibility>::new()))]
    pub movies_visibility: Visibility,

    #[command(flatten)]
    pub passwords: PasswordSettings,

    /// Threads that run request handlers, 2 to 1024
    #[arg(long, env, default_value = "96", value_name = "THREADS", value_parser = parse_number::<2, 1024>)]
    pub workers: u32,

    /// Maximum number of open client connections, 16 to 1000000; the default is what the limit of open files allows, at
    /// most 65536
    #[arg(long, env, value_name = "CONNECTIONS", value_parser = parse_number::<16, 1_000_000>)]
    pub max_connections: Option<u32>,

    /// Seconds after which an idle client connection is closed, 1 to 86400; must be longer than a proxy keeps its idle
    /// connections to this service
    #[arg(long, env, default_value = "75", value_name = "SECONDS", value_parser = parse_seconds::<DAY>)]
    pub idle_timeout: Duration,

    /// Connections to PostgreSQL, 1 to 1000: a quarter for writes and the rest for reads, at least one each; one more
    /// is used for health checks
    #[arg(long, env, default_value = "32", value_name = "CONNECTIONS", value_parser = parse_number::<1, 1000>)]
    pub db_pool_size: u32,

    /// Networks of the proxies whose X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host and X-Request-Id headers are
    /// trusted, separated by commas
    #[arg(long, env, value_name = "NETWORKS", value_delimiter = ',', value_parser = parse_network)]
    pub trusted_proxies: Vec<IpNet>,

    /// Wrong passwords that one address may send for one account before sign-ins are throttled; 0 for no limit
    #[arg(long, env, default_value = "10", value_name = "COUNT", value_parser = parse_number::<0, 1_000_000>)]
    pub login_failures: u32,

    /// Seconds until a throttled address may send one more password for the account
    #[arg(long, env, default_value = "60", value_name = "SECONDS", value_parser = parse_seconds::<CENTURY>)]
    pub login_cooldown: Duration,

    /// Wrong passwords that one address may send per hour, for all accounts together; 0 for no limit
    #[arg(long, env, default_value = "0", value_name = "COUNT", value_parser = parse_number::<0, 1_000_000>)]
    pub login_failures_per_hour: u32,

    /// Accounts that one address may register per hour; 0 for no limit
    #[arg(long, env, default_value = "0", value_name = "COUNT", value_parser = parse_number::<0, 1_000_000>)]
    pub registrations_per_hour: u32,

    /// Origins whose scripts may read responses (CORS), for example https://app.example.com, separated by commas
    #[arg(long, env, value_name = "ORIGINS", value_delimiter = ',')]
    pub cors_origins: Vec<Origin>,

    /// Whether responses have a Server-Timing header with the time spent in the database
    #[arg(long, env, default_value = "false", value_name = "BOOL", action = ArgAction::Set, value_parser = Trimmed(BoolValueParser::new()))]
    pub server_timing: bool,

    /// Least severe level that is logged: off, error, warn, info, debug or trace; a list sets it for single modules
    /// too, for example info,db=debug,request=off
    #[arg(long, env, default_value = "info", value_name = "LEVEL")]
    pub log_level: Levels,

    /// Format of log lines
    #[arg(long, env, default_value = "text", value_parser = Trimmed(EnumValueParser::<Format>::new()))]
    pub log_format: Format,
}

/// The setting of every command that uses the database.
#[derive(Args, Debug)]
pub struct DatabaseSettings {
    /// PostgreSQL database to use: a URL or key=value pairs, as libpq accepts them
    #[arg(long, env, value_parser = parse_database_url)]
    pub database_url: ConnectionConfig,
}

/// The settings of commands that issue or verify tokens.
#[derive(Args, Debug)]
pub struct TokenSettings {
    /// Key that signs tokens, at least 32 bytes
    #[arg(long, env)]
    pub secret_key: SigningKey,

    /// Previous keys whose tokens are still accepted, at least 32 bytes each, separated by commas
    #[arg(long, env, value_delimiter = ',', value_parser = parse_fallback)]
    pub secret_key_fallbacks: Vec<Option<SigningKey>>,

    /// Lifetime of an access token in seconds
    #[arg(long, env, default_value = "3600", value_name = "SECONDS", value_parser = parse_seconds::<CENTURY>)]
    pub access_token_lifetime: Duration,

    /// Lifetime of a refresh token in seconds
    #[arg(long, env, default_value = "86400", value_name = "SECONDS", value_parser = parse_seconds::<CENTURY>)]
    pub refresh_token_lifetime: Duration,
}

/// The setting of commands that hash passwords.
#[derive(Args, Debug)]
pub struct PasswordSettings {
    /// bcrypt cost of password hashes, 4 to 31: hashing takes 2^cost rounds
    #[arg(long, env, default_value = "10", value_name = "COST", value_parser = parse_number::<4, 31>)]
    pub bcrypt_cost: u32,
}

/// Printed in place of a value that may be a secret.
pub const HIDDEN: &str = "(hidden)";

/// Whether the argument's value may be logged, printed and repeated in an error message.
///
/// The value's type decides: enumerations and the types listed here are public. A value of any other type, such as
/// text, a connection string or a key, may hold a secret, so a setting of a new type stays hidden until its type is
/// added.
pub fn is_public(argument: &clap::Arg) -> bool {
    let public_types = [
        TypeId::of::<SocketAddr>(),
        TypeId::of::<u32>(),
        TypeId::of::<Duration>(),
        TypeId::of::<IpNet>(),
        TypeId::of::<Origin>(),
        TypeId::of::<Levels>(),
        TypeId::of::<HostName>(),
    ];
    let value_type = argument.get_value_parser().type_id();
    public_types.iter().any(|public| value_type == *public)
        || !argument.get_possible_values().is_empty()
}

/// The argument's values as they were given, separated by commas and without the white space around them.
pub fn raw_value(matches: &ArgMatches, name: &str) -> String {
    let values = matches.get_raw(name).into_iter().flatten();
    let values = values.map(|value| value.to_string_lossy().trim().to_owned());
    values.collect::<Vec<_>>().join(",")
}

/// A DNS host name: labels of letters, digits and hyphens, separated by dots (RFC 1123 2.1). It needs no quoting in any
/// file that `print` fills in.
#[derive(Clone, Debug)]
pub struct HostName(pub String);

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<HostName, String> {
        let text = text.trim();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if text.len() > 253 || !text.split('.').all(is_label) {
            return Err(
                "must be a host name such as movies.example.com, of letters, digits, hyphens and dots"
                    .to_owned(),
            );
        }
        Ok(HostName(text.to_owned()))
    }
}

/// Removes the white space around a value before `P`, a parser of clap's, parses it; the parsers below do so
/// themselves.
#[derive(Clone)]
struct Trimmed<P>(P);

impl<P: TypedValueParser> TypedValueParser for Trimmed<P> {
    type Value = P::Value;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<P::Value, clap::Error> {
        let trimmed = value.to_str().map_or(value, |text| OsStr::new(text.trim()));
        self.0.parse_ref(command, argument, trimmed)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

/// Parses a connection string in either form of libpq's. The error describes the mistake without repeating the value,
/// which may hold a password.
pub fn parse_database_url(text: &str) -> Result<ConnectionConfig, String> {
    text.trim().parse().map_err(|reason: String| {
        format!(
            "must be postgresql://user:password@host:port/database or key=value pairs ({reason})"
        )
    })
}

/// Parses one entry of SECRET_KEY_FALLBACKS. An empty entry is allowed and is not a key.
fn parse_fallback(text: &str) -> Result<Option<SigningKey>, WeakKey> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    text.parse().map(Some)
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| {
        "must be an IP address and a port such as 127.0.0.1:8000 or [::]:8000".to_owned()
    })
}

fn parse_number<const MIN: u32, const MAX: u32>(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(number) if (MIN..=MAX).contains(&number) => Ok(number),
        _ => Err(format!("must be a whole number from {MIN} to {MAX}")),
    }
}

fn parse_seconds<const MAX: u64>(text: &str) -> Result<Duration, String> {
    match text.trim().parse() {
        Ok(seconds) if (1..=MAX).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("must be a whole number of seconds from 1 to {MAX}")),
    }
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse()
        .or_else(|_| text.parse().map(|address: std::net::IpAddr| address.into()))
        .map_err(|_| "must be a list of networks such as 10.0.0.0/8,::1/128".to_owned())
}
