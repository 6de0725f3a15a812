//! DATABASE_URL: connection strings as libpq reads them, a URL or `name=value` pairs.
//!
//! The client library parses such strings too, but it does not know `sslmode=verify-ca`, `verify-full`, `sslrootcert` and
//! `passfile`, and its errors quote the string. A connection string holds a password, and in a misspelt one a piece of the
//! password may be anywhere: in a name, a host or a port. So everything is checked here first, and no error repeats any
//! part of the string but the names of files.
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use postgres::Config;
use postgres::config::{Host, SslMode};
use secrecy::{ExposeSecret, SecretString};

/// A parsed connection string.
#[derive(Debug)]
pub struct DatabaseUrl {
    /// One configuration for each server, in the order of the string.
    pub servers: Vec<Config>,
    /// Settings for each session, in the form of the server's command line.
    pub options: String,
    /// The time limit for connecting to one server, from the name lookup to the password check.
    pub connect_timeout: Duration,
    pub verification: Verification,
    /// The file of trusted root certificates in PEM; `None` stands for the operating system's.
    pub root_certificates: Option<PathBuf>,
}

/// How a server's certificate is verified. The client library knows only the modes without verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Not at all: sslmode `prefer`, and `require` without root certificates.
    None,
    /// A trusted authority has signed it: `verify-ca`, and `require` with root certificates.
    Authority,
    /// As `Authority`, and it names the host: `verify-full`.
    Host,
}

/// Parameters that are read here and not by the client library.
const OWN_PARAMETERS: [&str; 4] = ["sslmode", "sslrootcert", "passfile", "tcp_user_timeout"];

/// Parameters that are not part of each server's configuration: the addresses, of which each has its own; the options,
/// which each pool extends; and `load_balance_hosts`, since servers are tried in their order.
const PARAMETERS_OF_ALL_SERVERS: [&str; 5] =
    ["host", "hostaddr", "port", "options", "load_balance_hosts"];

/// With these a server that disappeared is noticed within about ten seconds: unacknowledged data by the TCP user timeout,
/// an idle connection by keepalive probes.
const DEFAULTS: [(&str, &str); 5] = [
    ("application_name", "movies-api"),
    ("connect_timeout", "3"),
    ("keepalives_idle", "5"),
    ("keepalives_interval", "2"),
    ("keepalives_retries", "3"),
];
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

/// The default host, as Debian's libpq has it.
const SOCKET_FOLDER: &str = "/var/run/postgresql";

impl FromStr for DatabaseUrl {
    /// The rule that the string breaks, as one sentence.
    type Err = String;

    fn from_str(text: &str) -> Result<DatabaseUrl, String> {
        let mut pairs = parse_parameters(text)?;
        let [mode, root_certificates, passfile, user_timeout] = OWN_PARAMETERS.map(|name| {
            let position = pairs.iter().position(|(given, _)| *given == name);
            position.map(|position| pairs.remove(position).1)
        });
        for (name, value) in DEFAULTS {
            if pairs.iter().all(|(given, _)| *given != name) {
                pairs.push((name, value.to_owned()));
            }
        }
        let root_certificates = root_certificates.filter(|path| path != "system");
        let (mode, verification) = match mode.as_deref() {
            Some("disable") => (SslMode::Disable, Verification::None),
            Some("allow" | "prefer") | None => (SslMode::Prefer, Verification::None),
            Some("require") if root_certificates.is_none() => {
                (SslMode::Require, Verification::None)
            }
            Some("require" | "verify-ca") => (SslMode::Require, Verification::Authority),
            Some("verify-full") => (SslMode::Require, Verification::Host),
            Some(_) => return Err(rule_of("sslmode")),
        };
        let user_timeout = match user_timeout.map(|value| value.parse()) {
            None => TCP_USER_TIMEOUT,
            Some(Ok(milliseconds)) => Duration::from_millis(milliseconds),
            Some(Err(_)) => return Err(rule_of("tcp_user_timeout")),
        };
        let (mut whole, mut settings) = to_configs(&pairs)?;
        if whole.get_hosts().is_empty() && whole.get_hostaddrs().is_empty() {
            whole.host(SOCKET_FOLDER);
        }
        settings.ssl_mode(mode).tcp_user_timeout(user_timeout);
        let connect_timeout = settings.get_connect_timeout().copied();
        // The library allows this time for each address of a name: half, so that a second address gets its turn.
        connect_timeout.map(|timeout| settings.connect_timeout(timeout / 2));
        let passwords: SecretString = match passfile {
            Some(path) if settings.get_password().is_none() => std::fs::read_to_string(&path)
                .map_err(|error| format!("passfile {path}: {error}"))?
                .into(),
            _ => SecretString::default(),
        };
        Ok(DatabaseUrl {
            options: whole.get_options().unwrap_or_default().to_owned(),
            servers: split_servers(&whole, &settings, passwords.expose_secret())?,
            connect_timeout: connect_timeout.unwrap_or(Duration::from_secs(3)),
            verification,
            root_certificates: root_certificates.map(PathBuf::from),
        })
    }
}

/// A parameter's name, which is one of [`PARAMETERS`], and its value.
type Parameter = (&'static str, String);

/// The names of all parameters, each with what its value must be.
const PARAMETERS: [(&str, &str); 22] = [
    (
        "host",
        "a name, an address or the folder of a socket, or several with commas (in a URL write %40 for @, %2F for /, \
         %3F for ? and %25 for % in user and password)",
    ),
    ("hostaddr", "an IP address, or several with commas"),
    (
        "port",
        "a number from 1 to 65535, or several with commas (in a URL write %2F for / and %40 for @ in user and password)",
    ),
    (
        "user",
        "a name without : = and ? (in a URL the colon before the password is not encoded)",
    ),
    ("password", "text"),
    ("dbname", "the name of a database, not a connection string"),
    ("options", "settings of the session such as -c work_mem=8MB"),
    ("application_name", "text"),
    ("passfile", "a path"),
    (
        "sslmode",
        "disable, prefer, require, verify-ca or verify-full",
    ),
    ("sslrootcert", "a path, or system"),
    ("sslnegotiation", "postgres or direct"),
    ("channel_binding", "disable, prefer or require"),
    ("connect_timeout", "a number of seconds"),
    ("tcp_user_timeout", "a number of milliseconds"),
    ("keepalives", "0 or 1"),
    ("keepalives_idle", "a number of seconds"),
    ("keepalives_interval", "a number of seconds"),
    // The client library's name for libpq's keepalives_count.
    ("keepalives_retries", "a number of probes"),
    ("keepalives_count", "a number of probes"),
    ("target_session_attrs", "any, read-write or read-only"),
    ("load_balance_hosts", "disable or random"),
];

fn rule_of(name: &str) -> String {
    let known = PARAMETERS.iter().find(|(known, _)| *known == name);
    let rule = known.map_or("allowed", |(_, rule)| rule);
    let name = name.replace("keepalives_retries", "keepalives_count");
    format!("{name} must be {rule}")
}

/// Returns the parameters that have a value, each once: as in libpq the last value of a name counts, and an empty one
/// counts as none.
fn parse_parameters(text: &str) -> Result<Vec<Parameter>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is blank".into());
    }
    if text.starts_with(['"', '\'']) {
        return Err(
            "it begins with a quotation mark, which would be part of it: leave out the quotation marks around it".into(),
        );
    }
    let url = text
        .strip_prefix("postgresql://")
        .or_else(|| text.strip_prefix("postgres://"));
    let mut pairs = match url {
        Some(url) => parse_url(url)?,
        None => parse_pairs(text)?,
    };
    let mut seen = HashSet::new();
    pairs.reverse();
    pairs.retain(|(name, value)| seen.insert(*name) && !value.is_empty());
    pairs.reverse();
    Ok(pairs)
}

/// Parses what follows the scheme: `user:password@host:port,host:port/dbname?name=value&name=value`. As in libpq, the
/// text before an `@` is user and password unless it contains a `/`.
fn parse_url(url: &str) -> Result<Vec<Parameter>, String> {
    let (credentials, rest) = match url.split_once('@') {
        Some((credentials, rest)) if !credentials.contains('/') => (credentials, rest),
        _ => ("", url),
    };
    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    // Else the second half of a password would be taken for a host or a database, and logged as such.
    if location.contains('@') {
        return Err(
            "an @ stands after the host: in user and password write %40 for @, %2F for /, %3F for ? and %25 for %".into(),
        );
    }
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let mut pairs = vec![("user", decode(user)?), ("password", decode(password)?)];
    let (hosts, dbname) = location.split_once('/').unwrap_or((location, ""));
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = split_port(host)?;
        names.push(decode(name)?);
        ports.push(port);
    }
    pairs.push(("host", names.join(",")));
    if ports.iter().any(|port| !port.is_empty()) {
        pairs.push(("port", ports.join(",")));
    }
    pairs.push(("dbname", decode(dbname)?));
    let parameters = query.split('&').filter(|pair| !pair.is_empty());
    for (position, parameter) in (1..).zip(parameters) {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err("a parameter after the ? has no value".into());
        };
        pairs.push((find_name(&decode(name)?, position)?, decode(value)?));
    }
    Ok(pairs)
}

fn split_port(host: &str) -> Result<(&str, &str), String> {
    let Some(rest) = host.strip_prefix('[') else {
        return Ok(host.split_once(':').unwrap_or((host, "")));
    };
    match rest.split_once(']') {
        Some((name, "")) => Ok((name, "")),
        Some((name, port)) if port.starts_with(':') => Ok((name, port.trim_start_matches(':'))),
        _ => Err("a [ before an IPv6 address has no ] after it".into()),
    }
}

fn decode(text: &str) -> Result<String, String> {
    let is_hexadecimal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_byte = |digits: &str| is_hexadecimal(digits) && digits != "00";
    let mut pieces = text.split('%').skip(1);
    if !pieces.all(|piece| piece.get(..2).is_some_and(is_byte)) {
        return Err("a % is not followed by the two digits of a byte: write %25 for %".into());
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err("its percent-encoded bytes are not UTF-8".into()),
    }
}

/// Parses `name=value` pairs that spaces separate. Single quotes enclose a value with spaces; a backslash escapes the
/// next character.
fn parse_pairs(text: &str) -> Result<Vec<Parameter>, String> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((name, value)) = rest.split_once('=') else {
            return Err(
                "a name has no =value: quote a value that holds spaces, and begin a URL with postgresql://".into(),
            );
        };
        let name = find_name(name.trim_end(), pairs.len() + 1)?;
        let (value, after) = split_value(value.trim_start())?;
        pairs.push((name, value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// Returns the value at the beginning of the text, and the text after it.
fn split_value(text: &str) -> Result<(String, &str), String> {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut letters = text.char_indices().skip(usize::from(is_quoted));
    let end = loop {
        match letters.next() {
            Some((_, '\\')) => value.extend(letters.next().map(|(_, letter)| letter)),
            Some((at, '\'')) if is_quoted => break at + 1,
            Some((at, letter)) if !is_quoted && letter.is_whitespace() => break at,
            Some((_, letter)) => value.push(letter),
            None if is_quoted => return Err("a quote is not closed".into()),
            None => break text.len(),
        }
    };
    Ok((value, text.get(end..).unwrap_or_default()))
}

/// Returns the name as it is in [`PARAMETERS`]. `position` is the parameter's in the string, from 1, for the error.
fn find_name(given: &str, position: usize) -> Result<&'static str, String> {
    let known = PARAMETERS.iter().find(|(name, _)| *name == given);
    match known {
        Some(("keepalives_count", _)) => Ok("keepalives_retries"),
        Some((name, _)) => Ok(name),
        None => {
            let known = PARAMETERS.map(|(name, _)| name).join(", ");
            Err(format!(
                "the name of parameter {position} is unknown (known: {known})"
            ))
        }
    }
}

/// Converts the parameters to the client library's configuration: those of [`PARAMETERS_OF_ALL_SERVERS`] to one, the
/// others to another.
///
/// # Errors
/// The rule for the first value that is not allowed. The library is not asked for its own error, which quotes the value.
fn to_configs(pairs: &[Parameter]) -> Result<(Config, Config), String> {
    let (mut of_all, mut of_each) = (String::new(), String::new());
    for (name, value) in pairs {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        let pair = format!("{name}='{quoted}' ");
        if !is_allowed(name, value) || pair.parse::<Config>().is_err() {
            return Err(rule_of(name));
        }
        if PARAMETERS_OF_ALL_SERVERS.contains(name) {
            of_all += &pair;
        } else {
            of_each += &pair;
        }
    }
    let parse = |text: String| text.parse::<Config>();
    match (parse(of_all), parse(of_each)) {
        (Ok(of_all), Ok(of_each)) => Ok((of_all, of_each)),
        _ => Err("its parameters do not go together".into()),
    }
}

/// Rejects values that the client library or the server would accept, but that are probably a piece of a password or a
/// whole connection string in the wrong parameter: later errors would show them.
fn is_allowed(name: &str, value: &str) -> bool {
    match name {
        "host" => value.split(',').all(is_host),
        "port" => value
            .split(',')
            .all(|port| port.is_empty() || matches!(port.parse(), Ok(1_u16..))),
        "user" => !value.contains([':', '=', '?']),
        "dbname" => {
            let is_authority = value.contains(':') && value.contains('@');
            !value.contains('=') && !value.contains("://") && !is_authority
        }
        "options" => are_options(value),
        _ => true,
    }
}

fn is_host(host: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let address = host.split('%').next().unwrap_or_default();
    host.starts_with('/') || host.bytes().all(is_name) || address.parse::<IpAddr>().is_ok()
}

/// Accepts `-c name=value`, `-cname=value` and `--name=value`, several of them with spaces between.
fn are_options(options: &str) -> bool {
    // A backslash before a space makes the space part of the value.
    let options = options.replace("\\\\", "").replace("\\ ", "");
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") if word == "-c" => words.next(),
            setting => setting,
        };
        if !setting.is_some_and(|setting| setting.contains('=')) {
            return false;
        }
    }
    true
}

/// Makes one configuration for each server of the whole, with the settings of all, so that each server can be tried
/// separately and with its own password from the passfile.
fn split_servers(
    whole: &Config,
    settings: &Config,
    passwords: &str,
) -> Result<Vec<Config>, String> {
    let (hosts, addresses, ports) = (whole.get_hosts(), whole.get_hostaddrs(), whole.get_ports());
    let count = hosts.len().max(addresses.len());
    let fits = |given: usize| given == 0 || given == count;
    if !fits(hosts.len()) || !fits(addresses.len()) || (ports.len() > 1 && ports.len() != count) {
        return Err("there are not as many ports or addresses as hosts".into());
    }
    let make_server = |index: usize| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let mut name = match hosts.get(index) {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.to_string_lossy().into_owned(),
            None => String::new(),
        };
        let mut server = settings.clone();
        if let Some(address) = addresses.get(index) {
            server.hostaddr(*address);
            if name.is_empty() {
                name = address.to_string();
            }
        }
        server.host(&name).port(port);
        if name.starts_with('/') {
            // PostgreSQL offers no TLS on Unix sockets.
            server.ssl_mode(SslMode::Disable);
        }
        let user = settings.get_user().unwrap_or_default();
        let dbname = settings.get_dbname().unwrap_or(user);
        if settings.get_password().is_none() {
            let password = find_password(passwords, [&name, &port.to_string(), dbname, user]);
            password.map(|password| server.password(password));
        }
        server
    };
    Ok((0..count).map(make_server).collect())
}

/// Returns the password of the first line `host:port:database:user:password` that matches; `*` matches everything, and
/// `localhost` also Unix sockets.
fn find_password(passwords: &str, wanted: [&str; 4]) -> Option<String> {
    passwords.lines().find_map(|line| {
        let (mut fields, mut field) = (Vec::new(), String::new());
        let mut letters = line.chars();
        while let Some(letter) = letters.next() {
            match letter {
                ':' if fields.len() < 4 => fields.push(std::mem::take(&mut field)),
                '\\' => field.extend(letters.next()),
                letter => field.push(letter),
            }
        }
        let password = (fields.len() == 4).then_some(field)?;
        let matches = |(field, wanted): (&String, &str)| {
            field == "*" || field == wanted || (field == "localhost" && wanted.starts_with('/'))
        };
        fields.iter().zip(wanted).all(matches).then_some(password)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> DatabaseUrl {
        text.parse().unwrap()
    }

    fn first_server(text: &str) -> Config {
        parse(text).servers.into_iter().next().unwrap()
    }

    fn parameters(text: &str) -> Vec<String> {
        let parameters = parse_parameters(text).unwrap().into_iter();
        parameters
            .map(|(name, value)| format!("{name}|{value}"))
            .collect()
    }

    #[test]
    fn pairs_are_parsed_as_libpq_parses_them() {
        let cases = [
            (" host=b  user = d ", vec!["host|b", "user|d"]),
            (r"user='b c' dbname=''", vec!["user|b c"]),
            (
                r"user='it\'s \\' dbname=c\ d",
                vec![r"user|it's \", "dbname|c d"],
            ),
            ("user=é='1", vec!["user|é='1"]),
            ("host=a host=b port=", vec!["host|b"]),
            ("keepalives_count=2", vec!["keepalives_retries|2"]),
        ];
        for (text, expected) in cases {
            assert_eq!(parameters(text), expected, "{text}");
        }
    }

    #[test]
    fn urls_are_parsed_as_libpq_parses_them() {
        let cases = [
            (
                "postgres://me:a?b:c@host/db?application_name=d%20e&options=",
                vec![
                    "user|me",
                    "password|a?b:c",
                    "host|host",
                    "dbname|db",
                    "application_name|d e",
                ],
            ),
            ("postgresql:///db?host=/tmp", vec!["dbname|db", "host|/tmp"]),
            ("postgresql://", vec![]),
            (
                "postgresql://%2Ftmp,[::1]:1,b/x?user=me@tenant",
                vec!["host|/tmp,::1,b", "port|,1,", "dbname|x", "user|me@tenant"],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parameters(text), expected, "{text}");
        }
    }

    #[test]
    fn options_must_be_settings() {
        for good in ["-c a=b", "-ca=b --c=d", r"-c a=b\ c -c d=e"] {
            assert!(are_options(good), "{good}");
        }
        for bad in ["a", "-c", "-c a", "-c a=b c=d", "-d 2", "--"] {
            assert!(!are_options(bad), "{bad}");
        }
    }

    #[test]
    fn url_and_pairs_with_the_same_content_are_equal() {
        let pairs = r"host=/tmp,b hostaddr='10.0.0.1,10.0.0.2' port=1,2 user = 'a b' password='it\'s \\' dbname=d options='-c a=b'";
        let url = "postgresql://a%20b:it's%20%5C@%2Ftmp:1,b:2/d?hostaddr=10.0.0.1,10.0.0.2&options=-c%20a%3Db";
        for text in [pairs, url] {
            let url = parse(text);
            assert_eq!(url.options, "-c a=b");
            assert_eq!(url.servers.len(), 2);
            let second = &url.servers[1];
            assert_eq!(second.get_hosts(), [Host::Tcp("b".to_owned())]);
            assert_eq!(second.get_ports(), [2]);
            assert_eq!(second.get_user(), Some("a b"));
            assert_eq!(second.get_password(), Some(&br"it's \"[..]));
            assert_eq!(second.get_dbname(), Some("d"));
            assert_eq!(second.get_application_name(), Some("movies-api"));
        }
    }

    #[test]
    fn sslmode_means_what_it_means_to_libpq() {
        let of = |given: &str| {
            let url = parse(&format!("host=a {given}"));
            (url.servers[0].get_ssl_mode(), url.verification)
        };
        assert_eq!(of(""), (SslMode::Prefer, Verification::None));
        assert_eq!(
            of("sslmode=disable"),
            (SslMode::Disable, Verification::None)
        );
        assert_eq!(
            of("sslmode=require"),
            (SslMode::Require, Verification::None)
        );
        assert_eq!(
            of("sslmode=require sslrootcert=/x"),
            (SslMode::Require, Verification::Authority)
        );
        assert_eq!(
            of("sslmode=verify-ca sslrootcert=/x"),
            (SslMode::Require, Verification::Authority)
        );
        assert_eq!(
            of("sslmode=verify-full"),
            (SslMode::Require, Verification::Host)
        );
        let local = first_server("postgresql:///movies");
        assert_eq!(
            local.get_hosts(),
            [Host::Unix(PathBuf::from(SOCKET_FOLDER))]
        );
        assert_eq!(local.get_ssl_mode(), SslMode::Disable);
        assert_eq!(parse("host=a sslrootcert=system").root_certificates, None);
    }

    #[test]
    fn timeouts_have_defaults_and_the_units_of_libpq() {
        let server = first_server("host=a");
        assert_eq!(server.get_tcp_user_timeout(), Some(&Duration::from_secs(5)));
        assert_eq!(server.get_keepalives_idle(), Duration::from_secs(5));
        let server = first_server("postgres://a/b?tcp_user_timeout=1500&keepalives_count=9");
        assert_eq!(
            server.get_tcp_user_timeout(),
            Some(&Duration::from_millis(1500))
        );
        assert_eq!(server.get_keepalives_retries(), Some(9));
        let url = parse("host=a connect_timeout=7");
        assert_eq!(url.connect_timeout, Duration::from_secs(7));
    }

    #[test]
    fn debug_output_hides_the_password() {
        let url = parse("postgres://u:hunter2@host/db");
        assert!(!format!("{url:?} {url:#?}").contains("hunter2"));
    }

    #[test]
    fn first_matching_line_of_the_passfile_gives_the_password() {
        let file = "# mine\nb:5432:*:ann:wrong\na:*:mov\\:ies:ann:r\\:i:ght\n*:*:*:*:other";
        let find = |host, user| find_password(file, [host, "5432", "mov:ies", user]);
        assert_eq!(find("a", "ann").as_deref(), Some("r:i:ght"));
        assert_eq!(find("a", "bob").as_deref(), Some("other"));
        let socket = "localhost:5432:d:u:p";
        assert_eq!(
            find_password(socket, ["/tmp", "5432", "d", "u"]).as_deref(),
            Some("p")
        );
        assert_eq!(find_password(socket, ["b", "5432", "d", "u"]), None);
    }
}
