//! Every setting: its flag and variable, default, unit, bounds; in groups, since a command asks for no more than it
//! uses. And which of them may be shown.
use std::any::TypeId;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{BoolValueParser, EnumValueParser, PossibleValue, TypedValueParser};
use clap::{ArgAction, Args, Parser};
use ipnet::IpNet;

use crate::api::options::{Origin, Visibility};
use crate::auth::signing_key::{SigningKey, WeakKey};
use crate::db::Database;
use crate::telemetry::logging::{Format, Levels};

/// What the service is set to.
#[derive(Debug, Parser)]
pub struct Settings {
    /// Address and port to listen on
    #[arg(long, env, default_value = "0.0.0.0:8000", hide_env_values = true, value_parser = parse_address)]
    pub bind: SocketAddr,

    /// Where the data is.
    #[command(flatten)]
    pub database: DatabaseSettings,

    /// What signs tokens.
    #[command(flatten)]
    pub tokens: TokenSettings,

    /// Whose movies a user may read
    #[arg(long, env, default_value = "own", hide_env_values = true, value_parser = Trimmed(EnumValueParser::<Visibility>::new()))]
    pub movies_visibility: Visibility,

    /// How hard passwords are hashed.
    #[command(flatten)]
    pub passwords: PasswordSettings,

    /// Threads that handle requests, 2 to 1024
    #[arg(long, env, default_value = "96", hide_env_values = true, value_name = "THREADS", value_parser = parse_between::<2, 1024>)]
    pub workers: u32,

    /// Clients' connections open at once, 16 to 1000000; by default what the limit of open files leaves, up to 65536
    #[arg(long, env, hide_env_values = true, value_name = "CONNECTIONS", value_parser = parse_between::<16, 1_000_000>)]
    pub max_connections: Option<u32>,

    /// How long a connection may be silent between requests before it is closed, in seconds, 1 to 86400; longer than a
    /// proxy keeps its connections to this service
    #[arg(long, env, default_value = "75", hide_env_values = true, value_name = "SECONDS", value_parser = parse_seconds_of_a_day)]
    pub idle_timeout: Duration,

    /// Connections to PostgreSQL, 1 to 1000: a quarter for writes, the others for reads, at least one each; one more checks
    /// that it answers
    #[arg(long, env, default_value = "32", hide_env_values = true, value_name = "CONNECTIONS", value_parser = parse_between::<1, 1000>)]
    pub db_pool_size: u32,

    /// Networks of proxies whose X-Forwarded-For, -Proto and -Host and X-Request-Id are believed, separated by commas
    #[arg(long, env, hide_env_values = true, value_name = "NETWORKS", value_delimiter = ',', value_parser = parse_network)]
    pub trusted_proxies: Vec<IpNet>,

    /// Wrong passwords that one address may send for one account before it has to wait; 0: no bound
    #[arg(long, env, default_value = "10", hide_env_values = true, value_name = "COUNT", value_parser = parse_between::<0, 1_000_000>)]
    pub login_failures: u32,

    /// How long that wait is: until one more may be sent, in seconds
    #[arg(long, env, default_value = "60", hide_env_values = true, value_name = "SECONDS", value_parser = parse_lifetime)]
    pub login_wait: Duration,

    /// Wrong passwords that one address may send in an hour, whatever the accounts; 0: no bound
    #[arg(long, env, default_value = "0", hide_env_values = true, value_name = "COUNT", value_parser = parse_between::<0, 1_000_000>)]
    pub login_failures_per_hour: u32,

    /// Accounts that one address may make in an hour; 0: no bound
    #[arg(long, env, default_value = "0", hide_env_values = true, value_name = "COUNT", value_parser = parse_between::<0, 1_000_000>)]
    pub registrations_per_hour: u32,

    /// Other sites whose scripts may read answers (CORS), such as https://app.example.com, separated by commas
    #[arg(long, env, hide_env_values = true, value_name = "ORIGINS", value_delimiter = ',', value_parser = parse_origin)]
    pub cors_origins: Vec<Origin>,

    /// Whether answers say where their time went, in Server-Timing
    #[arg(long, env, default_value = "false", hide_env_values = true, value_name = "BOOL", action = ArgAction::Set, value_parser = Trimmed(BoolValueParser::new()))]
    pub server_timing: bool,

    /// How much is logged: off, error, warn, info, debug, trace; a list sets it for single rooms of the program too, such
    /// as info,store=debug,request=off
    #[arg(long, env, default_value = "info", hide_env_values = true, value_name = "LEVEL", value_parser = parse_levels)]
    pub log_level: Levels,

    /// How lines of the log are written
    #[arg(long, env, default_value = "text", hide_env_values = true, value_parser = Trimmed(EnumValueParser::<Format>::new()))]
    pub log_format: Format,
}

/// Where the data is.
#[derive(Args, Debug)]
pub struct DatabaseSettings {
    /// PostgreSQL to keep the data in: a URL or key=value pairs, as libpq takes them
    #[arg(long, env, hide_env_values = true, value_parser = parse_database_url)]
    pub database_url: Database,
}

/// What signs tokens, and how long they live.
#[derive(Args, Debug)]
pub struct TokenSettings {
    /// Secret that signs the tokens; 32 bytes or more are required
    #[arg(long, env, hide_env_values = true, value_parser = str::parse::<SigningKey>)]
    pub secret_key: SigningKey,

    /// Former secrets whose tokens are still accepted, separated by commas; 32 bytes or more are required of each
    #[arg(long, env, hide_env_values = true, value_delimiter = ',', value_parser = parse_fallback)]
    pub secret_key_fallbacks: Vec<Option<SigningKey>>,

    /// How long an access token is good, in seconds
    #[arg(long, env, default_value = "3600", hide_env_values = true, value_name = "SECONDS", value_parser = parse_lifetime)]
    pub access_token_lifetime: Duration,

    /// How long a refresh token is good, in seconds
    #[arg(long, env, default_value = "86400", hide_env_values = true, value_name = "SECONDS", value_parser = parse_lifetime)]
    pub refresh_token_lifetime: Duration,
}

/// How hard passwords are hashed.
#[derive(Args, Debug)]
pub struct PasswordSettings {
    /// Cost of a password's bcrypt hash, 4 to 31: it takes 2^cost rounds
    #[arg(long, env, default_value = "10", hide_env_values = true, value_name = "COST", value_parser = parse_between::<4, 31>)]
    pub bcrypt_cost: u32,
}

/// Whether the argument's value may be logged, printed and repeated in an error. It follows from the type: a fixed choice
/// of words may, and the types that are listed here. Any other, such as text, an address of a database or a key, may hold
/// a secret, so a setting of a new type is hidden until its type is added.
pub fn is_shown(argument: &clap::Arg) -> bool {
    let shown = [
        TypeId::of::<SocketAddr>(),
        TypeId::of::<u32>(),
        TypeId::of::<Duration>(),
        TypeId::of::<IpNet>(),
        TypeId::of::<Origin>(),
        TypeId::of::<Levels>(),
        TypeId::of::<HostName>(),
    ];
    let value_type = argument.get_value_parser().type_id();
    shown.iter().any(|shown| value_type == *shown) || !argument.get_possible_values().is_empty()
}

/// A name of a host: labels of letters, digits and hyphens with dots between them. It means itself in every file that
/// `print` prints.
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
                "it is a name such as movies.example.com, of letters, digits, hyphens and dots"
                    .to_owned(),
            );
        }
        Ok(HostName(text.to_owned()))
    }
}

/// A parser of this crate's or clap's that gets the value without the white space around it, as every setting's does.
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

/// As libpq reads it.
pub fn parse_database_url(text: &str) -> Result<Database, String> {
    text.trim().parse().map_err(|reason: String| {
        format!("it is postgresql://user:password@host:port/database or key=value pairs ({reason})")
    })
}

/// One of the former keys; nothing where there is nothing between two commas.
fn parse_fallback(text: &str) -> Result<Option<SigningKey>, WeakKey> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    text.parse().map(Some)
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.trim()
        .parse()
        .map_err(|_| "it is an address and a port such as 127.0.0.1:8000 or [::]:8000".to_owned())
}

fn parse_levels(text: &str) -> Result<Levels, String> {
    text.trim().parse()
}

fn parse_between<const LEAST: u32, const MOST: u32>(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(number) if (LEAST..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("it is a whole number, {LEAST} to {MOST}")),
    }
}

fn parse_seconds_of_a_day(text: &str) -> Result<Duration, String> {
    const DAY: u32 = 86_400;
    parse_between::<1, DAY>(text)
        .map(|seconds| Duration::from_secs(seconds.into()))
        .map_err(|_| format!("it is a whole number of seconds, 1 to {DAY}"))
}

fn parse_lifetime(text: &str) -> Result<Duration, String> {
    // A century: far past any use, far below where a time in seconds could overflow.
    const LONGEST: u64 = 100 * 365 * 86_400;
    match text.trim().parse() {
        Ok(seconds @ 1..=LONGEST) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("it is a whole number of seconds, 1 to {LONGEST}")),
    }
}

fn parse_origin(text: &str) -> Result<Origin, String> {
    text.trim().parse()
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse()
        .or_else(|_| text.parse().map(|address: std::net::IpAddr| address.into()))
        .map_err(|_| "it is a list of networks such as 10.0.0.0/8,::1/128".to_owned())
}
