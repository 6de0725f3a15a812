//! `print`: prints the files of a deployment, filled in with this installation's path and settings, but without
//! secrets.
use std::env;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};

use crate::config::{HostName, Settings, is_public, raw_value};
use crate::http;

/// The arguments of `print`.
#[derive(Args, Debug)]
pub struct Print {
    #[command(flatten)]
    settings: PublicSettings,

    /// File to print
    file: File,

    /// Host name by which clients reach the service; used in the proxies' files
    #[arg(long, default_value = "movies.example.com")]
    host: HostName,
}

/// The variable on which the service and the printed proxies have to agree.
const TRUSTED_PROXIES: &str = "TRUSTED_PROXIES";

/// The value of [`TRUSTED_PROXIES`] in printed files if it is not set: a proxy on the same machine.
const DEFAULT_TRUSTED_PROXIES: &str = "127.0.0.1,::1";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum File {
    /// systemd unit of the service, in a sandbox
    Systemd,
    /// Containerfile that builds an image from the source
    Container,
    /// compose.yaml with the image and PostgreSQL
    Compose,
    /// Caddy configuration; Caddy obtains its certificates itself
    Caddy,
    /// nginx configuration
    Nginx,
    /// HAProxy configuration
    Haproxy,
    /// systemd unit that backs up the database
    SystemdBackup,
    /// systemd timer that starts the backup every night
    SystemdBackupTimer,
    /// Grafana dashboard for the metrics of /metrics
    Grafana,
}

/// Those settings of `serve` that are not secret. None is required, since a printed file never contains the required
/// ones.
#[derive(Debug)]
struct PublicSettings {
    bind: SocketAddr,
    idle_timeout: Duration,
    /// The limit of open files that the service needs for its connections.
    max_files: u64,
    /// Variable and value of each setting that was given.
    given: Vec<(String, String)>,
}

impl Args for PublicSettings {
    fn augment_args(command: clap::Command) -> clap::Command {
        Settings::augment_args(command).mut_args(|argument| argument.required(false))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        PublicSettings::augment_args(command)
    }
}

impl FromArgMatches for PublicSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<PublicSettings, clap::Error> {
        let missing = || clap::Error::new(ErrorKind::MissingRequiredArgument);
        let definition = Settings::augment_args(clap::Command::new("settings"));
        let names = definition
            .get_arguments()
            .filter(|argument| is_public(argument))
            .map(|argument| argument.get_id().as_str());
        let is_given = |name: &&str| {
            let source = matches.value_source(name);
            source.is_some_and(|source| source != ValueSource::DefaultValue)
        };
        let number = |name| matches.get_one::<u32>(name).copied().map(u64::from);
        Ok(PublicSettings {
            bind: *matches.get_one("bind").ok_or_else(missing)?,
            idle_timeout: *matches.get_one("idle_timeout").ok_or_else(missing)?,
            max_files: http::required_open_files(
                number("max_connections"),
                number("db_pool_size").ok_or_else(missing)?,
            ),
            given: names
                .filter(is_given)
                .map(|name| (name.to_uppercase(), raw_value(matches, name)))
                .collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = PublicSettings::from_arg_matches(matches)?;
        Ok(())
    }
}

impl PublicSettings {
    /// The address at which programs on this machine reach the service.
    fn local_address(&self) -> SocketAddr {
        let mut address = self.bind;
        match self.bind.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        address
    }

    /// Whether the address is valid on one network interface only, as `fe80::1%2` is.
    fn has_scope(&self) -> bool {
        matches!(self.bind, SocketAddr::V6(address) if address.scope_id() != 0)
    }

    /// How long a proxy may keep an idle connection to the service, with its unit. Shorter than IDLE_TIMEOUT, so that the
    /// proxy never sends a request on a connection that the service is closing.
    fn keepalive(&self) -> String {
        let milliseconds = self.idle_timeout.as_millis() * 4 / 5;
        match milliseconds % 1000 {
            0 => format!("{}s", milliseconds / 1000),
            _ => format!("{milliseconds}ms"),
        }
    }

    fn trusted_proxies(&self) -> &str {
        let given = self.given.iter().find(|(name, _)| name == TRUSTED_PROXIES);
        given.map_or(DEFAULT_TRUSTED_PROXIES, |(_, value)| value)
    }
}

/// # Errors
/// If the file cannot contain the program's path or a setting's value.
pub fn print(arguments: &Print) -> anyhow::Result<()> {
    let settings = &arguments.settings;
    for (name, value) in &settings.given {
        ensure!(
            !value.contains(char::is_control),
            "{name} contains a control character, which no file can hold: remove it"
        );
    }
    ensure!(
        !(settings.has_scope() && matches!(arguments.file, File::Nginx | File::Haproxy)),
        "BIND={} is valid on one network interface only, and nginx and HAProxy cannot name it: set an address without %",
        settings.bind
    );
    let template = match arguments.file {
        File::Systemd => include_str!("print/movies-api.service"),
        File::Container => include_str!("print/Containerfile"),
        File::Compose => include_str!("print/compose.yaml"),
        File::Caddy => include_str!("print/Caddyfile"),
        File::Nginx => include_str!("print/nginx.conf"),
        File::Haproxy => include_str!("print/haproxy.cfg"),
        File::SystemdBackup => include_str!("print/movies-api-backup.service"),
        File::SystemdBackupTimer => include_str!("print/movies-api-backup.timer"),
        File::Grafana => include_str!("print/grafana.json"),
    };
    let (program, environment) = match arguments.file {
        File::Systemd => (quote_program_path()?, unit_environment(settings)),
        File::Compose => (String::new(), compose_environment(&settings.given)?),
        _ => Default::default(),
    };
    let values = [
        ("@binary@", program),
        ("@version@", env!("CARGO_PKG_VERSION").to_owned()),
        ("@rust@", env!("CARGO_PKG_RUST_VERSION").to_owned()),
        ("@host@", arguments.host.0.clone()),
        ("@bind@", settings.bind.to_string()),
        ("@port@", settings.bind.port().to_string()),
        ("@address@", settings.local_address().to_string()),
        ("@proxies@", settings.trusted_proxies().to_owned()),
        ("@files@", settings.max_files.to_string()),
        (
            "@idle_timeout@",
            settings.idle_timeout.as_secs().to_string(),
        ),
        ("@keepalive@", settings.keepalive()),
        ("@settings@\n", environment),
    ];
    Ok(io::stdout().write_all(fill(template, &values).as_bytes())?)
}

/// Replaces each name in the template by its value. Names inside values are not replaced.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some(found) = rest.find('@') {
        let (before, from) = rest.split_at(found);
        text.push_str(before);
        let value = values
            .iter()
            .find_map(|(name, value)| Some((value.as_str(), from.strip_prefix(name)?)));
        let (replaced, after) = value.unwrap_or_else(|| from.split_at(1));
        text.push_str(replaced);
        rest = after;
    }
    text + rest
}

/// Quotes the program's path for the double quotes of an `ExecStart`. systemd.service(5) documents escapes for quotes
/// and backslashes, but systemd 252 rejects both in the path of a program.
fn quote_program_path() -> anyhow::Result<String> {
    let path = env::current_exe().context("the path of this program cannot be determined")?;
    let is_allowed = |path: &&str| {
        !path.contains(|letter: char| letter.is_control() || matches!(letter, '"' | '\'' | '\\'))
    };
    let allowed = path.to_str().filter(is_allowed).with_context(|| {
        format!(
            "the program's path {path:?} contains a character that a systemd unit cannot: move it, for example to /usr/local/bin"
        )
    })?;
    Ok(allowed.replace('%', "%%"))
}

/// The settings as `Environment=` lines of a systemd unit, quoted by systemd.exec(5). A `%` would begin a specifier.
fn unit_environment(settings: &PublicSettings) -> String {
    let quote = |value: &str| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        value.replace('%', "%%")
    };
    let line = |(name, value): (&str, &str)| format!("Environment=\"{name}={}\"\n", quote(value));
    let given = settings.given.iter();
    let others = given.filter(|(name, _)| name != TRUSTED_PROXIES);
    let others = others.map(|(name, value)| (name.as_str(), value.as_str()));
    let proxies = (TRUSTED_PROXIES, settings.trusted_proxies());
    others.chain([proxies]).map(line).collect()
}

/// The settings as entries of a YAML mapping, quoted as JSON strings, which YAML 1.2 includes. A `$` would begin a
/// variable of Compose. BIND is left out, since the image sets it.
fn compose_environment(given: &[(String, String)]) -> serde_json::Result<String> {
    given
        .iter()
        .filter(|(name, _)| name != "BIND")
        .map(|(name, value)| {
            let value = serde_json::to_string(&value.replace('$', "$$"))?;
            Ok(format!("      {name}: {value}\n"))
        })
        .collect()
}
