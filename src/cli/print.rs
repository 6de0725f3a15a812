//! `print`: the files of a deployment, with this installation's own paths and settings filled in, and no secret.
use std::env;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};

use crate::config::{HostName, Settings, is_shown};
use crate::http;

/// What is printed, and for whom.
#[derive(Args, Debug)]
pub struct Print {
    /// What the service is set to.
    #[command(flatten)]
    given: Given,

    /// The file
    file: File,

    /// The name by which clients know the service; for the proxies
    #[arg(long, default_value = "movies.example.com", value_parser = str::parse::<HostName>)]
    host: HostName,
}

/// The setting that the service and a proxy have to agree on.
const TRUSTED_PROXIES: &str = "TRUSTED_PROXIES";

/// Its value where none is given: a proxy on the same machine.
const PROXY_ON_SAME_MACHINE: &str = "127.0.0.1,::1";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum File {
    /// A unit for systemd, shut off from all that the service does not need
    Systemd,
    /// A Containerfile, which builds an image from the source
    Container,
    /// A compose.yaml: the image and a PostgreSQL
    Compose,
    /// A configuration of Caddy, which gets its certificates by itself
    Caddy,
    /// A configuration of nginx
    Nginx,
    /// A configuration of HAProxy
    Haproxy,
    /// A unit for systemd that backs the database up
    SystemdBackup,
    /// A timer for systemd that starts that unit every night
    SystemdBackupTimer,
    /// A dashboard for Grafana over the figures of /metrics
    Grafana,
}

/// The settings of `serve`, of which here none has to be there.
#[derive(Debug)]
struct Given {
    bind: SocketAddr,
    idle_timeout: Duration,
    /// What LimitNOFILE and its likes have to leave for all connections.
    files: u64,
    /// Name and value of each that was set and is no secret.
    set: Vec<(String, String)>,
}

impl Args for Given {
    fn augment_args(command: clap::Command) -> clap::Command {
        Settings::augment_args(command).mut_args(|argument| argument.required(false))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Given::augment_args(command)
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Given, clap::Error> {
        let missing = || clap::Error::new(ErrorKind::MissingRequiredArgument);
        let settings = Settings::augment_args(clap::Command::new("settings"));
        let shown = settings
            .get_arguments()
            .filter(|argument| is_shown(argument));
        let names = shown.map(|argument| argument.get_id().as_str());
        let is_set = |name: &&str| {
            let source = matches.value_source(name);
            source.is_some_and(|source| source != ValueSource::DefaultValue)
        };
        let value_of = |name: &str| {
            let values = matches.get_raw(name).into_iter().flatten();
            let values = values.map(|value| value.to_string_lossy().trim().to_owned());
            values.collect::<Vec<_>>().join(",")
        };
        let number = |name| matches.get_one::<u32>(name).copied().map(u64::from);
        Ok(Given {
            bind: *matches.get_one("bind").ok_or_else(missing)?,
            idle_timeout: *matches.get_one("idle_timeout").ok_or_else(missing)?,
            files: http::required_open_files(
                number("max_connections"),
                number("db_pool_size").ok_or_else(missing)?,
            ),
            set: names
                .filter(is_set)
                .map(|name| (name.to_uppercase(), value_of(name)))
                .collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Given::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Given {
    /// Where somebody on this machine reaches the service.
    fn address(&self) -> SocketAddr {
        let ip = match self.bind.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.bind.port())
    }

    /// How long a proxy may keep an idle connection to the service: less than the service itself does.
    fn keepalive_seconds(&self) -> u64 {
        (self.idle_timeout.as_secs() * 4 / 5).max(1)
    }

    fn trusted_proxies(&self) -> &str {
        let set = self.set.iter().find(|(name, _)| name == TRUSTED_PROXIES);
        set.map_or(PROXY_ON_SAME_MACHINE, |(_, value)| value)
    }
}

/// Prints the file.
///
/// # Errors
/// If the program's path or a setting cannot stand in it.
pub fn print(asked: &Print) -> anyhow::Result<()> {
    let given = &asked.given;
    for (name, value) in &given.set {
        let is_printable = !value.contains(char::is_control);
        ensure!(is_printable, "{name} holds a control character");
    }
    let (template, binary, settings) = match asked.file {
        File::Systemd => (
            include_str!("print/movies-api.service"),
            quote_path()?,
            lines_of_unit(given),
        ),
        File::Compose => (
            include_str!("print/compose.yaml"),
            String::new(),
            lines_of_compose(&given.set)?,
        ),
        File::Container => plain(include_str!("print/Containerfile")),
        File::Caddy => plain(include_str!("print/Caddyfile")),
        File::Nginx => plain(include_str!("print/nginx.conf")),
        File::Haproxy => plain(include_str!("print/haproxy.cfg")),
        File::SystemdBackup => plain(include_str!("print/movies-api-backup.service")),
        File::SystemdBackupTimer => plain(include_str!("print/movies-api-backup.timer")),
        File::Grafana => plain(include_str!("print/grafana.json")),
    };
    let values = [
        ("@binary@", binary),
        ("@version@", env!("CARGO_PKG_VERSION").to_owned()),
        ("@rust@", env!("CARGO_PKG_RUST_VERSION").to_owned()),
        ("@host@", asked.host.0.clone()),
        ("@bind@", given.bind.to_string()),
        ("@port@", given.bind.port().to_string()),
        ("@address@", given.address().to_string()),
        ("@proxies@", given.trusted_proxies().to_owned()),
        ("@files@", given.files.to_string()),
        ("@idle_timeout@", given.idle_timeout.as_secs().to_string()),
        ("@keepalive@", given.keepalive_seconds().to_string()),
        ("@settings@\n", settings),
    ];
    Ok(io::stdout().write_all(fill(template, &values).as_bytes())?)
}

fn plain(template: &str) -> (&str, String, String) {
    (template, String::new(), String::new())
}

/// The template with each name replaced. What a value holds is not looked at again.
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

/// The program's path inside the double quotes of an `ExecStart`. Of what systemd.service(5) lets one escape there, a
/// quote and a backslash are refused by systemd 252 in the path of a program all the same.
fn quote_path() -> anyhow::Result<String> {
    let path = env::current_exe().context("the path of this program")?;
    let can_stand = |path: &&str| {
        !path.contains(|letter: char| letter.is_control() || matches!(letter, '"' | '\'' | '\\'))
    };
    let quoted = path.to_str().filter(can_stand);
    let quoted = quoted.with_context(|| {
        format!(
            "the program's path {path:?} holds what a unit cannot: put it into /usr/local/bin, say"
        )
    })?;
    Ok(quoted.replace('%', "%%"))
}

/// As systemd.exec(5) quotes them; a `%` would begin a specifier.
fn lines_of_unit(given: &Given) -> String {
    let quote = |value: &str| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        value.replace('%', "%%")
    };
    let line = |(name, value): (&str, &str)| format!("Environment=\"{name}={}\"\n", quote(value));
    let proxies = (TRUSTED_PROXIES, given.trusted_proxies());
    let others = given.set.iter().filter(|(name, _)| name != TRUSTED_PROXIES);
    let others = others.map(|(name, value)| (name.as_str(), value.as_str()));
    others.chain([proxies]).map(line).collect()
}

/// As YAML takes them from JSON; a `$` would begin a variable. The image itself says where it listens.
fn lines_of_compose(set: &[(String, String)]) -> serde_json::Result<String> {
    set.iter()
        .filter(|(name, _)| name != "BIND")
        .map(|(name, value)| {
            let value = serde_json::to_string(&value.replace('$', "$$"))?;
            Ok(format!("      {name}: {value}\n"))
        })
        .collect()
}
