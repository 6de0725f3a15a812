//! A connection string in pieces: names and values, from either of libpq's two forms.
//!
//! A connection string holds a password, and one that is misspelt may have a piece of it anywhere: in a name, in a host, in a
//! port. So no error repeats any of it but the names of files, and nothing is passed on to the client library, whose errors
//! quote it, before it was checked here.
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use postgres::Config;

/// A parameter's name, which is one of [`PARAMETERS`], and its value.
pub type Pair = (&'static str, String);

/// What is wrong with a connection string.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The rule that the string breaks.
    #[error("{0}")]
    Rule(&'static str),
    /// A name is none of [`PARAMETERS`].
    #[error("the name of parameter {position} is none of {}", known_names())]
    UnknownName {
        /// Counted from 1.
        position: usize,
    },
    /// A file that the string names cannot be used.
    #[error("{name} {}: {reason}", path.display())]
    File {
        /// The parameter.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// For callers that only show it.
impl From<Invalid> for String {
    fn from(invalid: Invalid) -> String {
        invalid.to_string()
    }
}

/// The parameters that are known, each with the rule for its value.
const PARAMETERS: [(&str, &str); 22] = [
    (
        "host",
        "host is a name, an address or the folder of a socket, or several with commas (in a URL write %40 for @, %2F for /, \
         %3F for ? and %25 for % in user and password)",
    ),
    (
        "hostaddr",
        "hostaddr is an IP address, or several with commas",
    ),
    (
        "port",
        "port is a number, 1 to 65535, or several with commas (in a URL write %2F for / and %40 for @ in user and password)",
    ),
    (
        "user",
        "user is a name without : = and ? (in a URL the colon before the password is written as it is)",
    ),
    ("password", "password is text"),
    (
        "dbname",
        "dbname is the name of a database, not a connection string",
    ),
    (
        "options",
        "options are settings of the session such as -c work_mem=8MB",
    ),
    ("application_name", "application_name is text"),
    ("passfile", "passfile is a path"),
    (
        "sslmode",
        "sslmode is disable, prefer, require, verify-ca or verify-full",
    ),
    ("sslrootcert", "sslrootcert is a path, or system"),
    ("sslnegotiation", "sslnegotiation is postgres or direct"),
    (
        "channel_binding",
        "channel_binding is disable, prefer or require",
    ),
    ("connect_timeout", "connect_timeout is a number of seconds"),
    (
        "tcp_user_timeout",
        "tcp_user_timeout is a number of milliseconds",
    ),
    ("keepalives", "keepalives is 0 or 1"),
    ("keepalives_idle", "keepalives_idle is a number of seconds"),
    (
        "keepalives_interval",
        "keepalives_interval is a number of seconds",
    ),
    (
        "keepalives_retries",
        "keepalives_count is a number of probes",
    ),
    // libpq's name of the one before.
    ("keepalives_count", "keepalives_count is a number of probes"),
    (
        "target_session_attrs",
        "target_session_attrs is any, read-write or read-only",
    ),
    (
        "load_balance_hosts",
        "load_balance_hosts is disable or random",
    ),
];

fn known_names() -> String {
    PARAMETERS.map(|(name, _)| name).join(", ")
}

/// The parameters that the string gives a value, each once: of several values the last counts, and an empty one is none.
///
/// # Errors
/// The rule that the string breaks. The values are checked by [`to_config`] and by whoever takes them.
pub fn parse(text: &str) -> Result<Vec<Pair>, Invalid> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Invalid::Rule("it is blank"));
    }
    if text.starts_with(['"', '\'']) {
        return Err(Invalid::Rule(
            "it begins with a quotation mark, which is read as part of it: leave out the marks around it",
        ));
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
    pairs.retain(|(name, _)| seen.insert(*name));
    pairs.retain(|(_, value)| !value.is_empty());
    pairs.reverse();
    Ok(pairs)
}

/// What stands behind the scheme: `user:password@host:port,host:port/dbname?name=value&name=value`. As in libpq, what
/// stands before an `@` is user and password unless there is a `/` before it.
fn parse_url(url: &str) -> Result<Vec<Pair>, Invalid> {
    let (credentials, rest) = match url.split_once('@') {
        Some((credentials, rest)) if !credentials.contains('/') => (Some(credentials), rest),
        _ => (None, url),
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    // Half of a password would be taken for a host or a database, and shown as such.
    if place.contains('@') {
        return Err(Invalid::Rule(
            "an @ stands after the host: in user and password write %40 for @, %2F for /, %3F for ? and %25 for %",
        ));
    }
    let mut pairs = Vec::new();
    if let Some(credentials) = credentials {
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        pairs.push(("user", decode(user)?));
        pairs.push(("password", decode(password)?));
    }
    let (hosts, dbname) = place.split_once('/').unwrap_or((place, ""));
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
            return Err(Invalid::Rule("a parameter after the ? has no value"));
        };
        pairs.push((find_name(&decode(name)?, position)?, decode(value)?));
    }
    Ok(pairs)
}

fn split_port(host: &str) -> Result<(&str, &str), Invalid> {
    let Some(rest) = host.strip_prefix('[') else {
        return Ok(host.split_once(':').unwrap_or((host, "")));
    };
    match rest.split_once(']') {
        Some((name, "")) => Ok((name, "")),
        Some((name, port)) if port.starts_with(':') => Ok((name, port.trim_start_matches(':'))),
        _ => Err(Invalid::Rule(
            "a [ before an IPv6 address has no ] after it",
        )),
    }
}

fn decode(text: &str) -> Result<String, Invalid> {
    let mut pieces = text.split('%').skip(1);
    let is_hexadecimal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !pieces.all(|piece| {
        piece
            .get(..2)
            .is_some_and(|digits| is_hexadecimal(digits) && digits != "00")
    }) {
        return Err(Invalid::Rule(
            "a % is not followed by the two digits of a byte: write %25 for %",
        ));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| Invalid::Rule("its percent-encoded bytes are not UTF-8"))?;
    Ok(decoded.into_owned())
}

/// `name=value` with spaces between, values in quotes where they hold some; a backslash takes the next as it is.
fn parse_pairs(text: &str) -> Result<Vec<Pair>, Invalid> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((name, value)) = rest.split_once('=') else {
            return Err(Invalid::Rule(
                "a name has no =value: quote a value that holds spaces, and begin a URL with postgresql://",
            ));
        };
        let name = find_name(name.trim_end(), pairs.len() + 1)?;
        let (value, behind) = split_value(value.trim_start())?;
        pairs.push((name, value));
        rest = behind.trim_start();
    }
    Ok(pairs)
}

/// The value that the text begins with, and what follows it.
fn split_value(text: &str) -> Result<(String, &str), Invalid> {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut letters = text.char_indices().skip(usize::from(is_quoted));
    let end = loop {
        match letters.next() {
            Some((_, '\\')) => value.extend(letters.next().map(|(_, letter)| letter)),
            Some((at, '\'')) if is_quoted => break at + 1,
            Some((at, letter)) if !is_quoted && letter.is_whitespace() => break at,
            Some((_, letter)) => value.push(letter),
            None if is_quoted => return Err(Invalid::Rule("a quote is not closed")),
            None => break text.len(),
        }
    };
    Ok((value, text.get(end..).unwrap_or_default()))
}

fn find_name(given: &str, position: usize) -> Result<&'static str, Invalid> {
    let known = PARAMETERS.iter().find(|(name, _)| *name == given);
    match known {
        // Where libpq and the client library differ, libpq's name counts.
        Some(("keepalives_count", _)) => Ok("keepalives_retries"),
        Some((name, _)) => Ok(name),
        None => Err(Invalid::UnknownName { position }),
    }
}

/// What the client library makes of the parameters.
///
/// # Errors
/// The rule for the first value that is not allowed.
pub fn to_config(pairs: &[Pair]) -> Result<Config, Invalid> {
    let mut whole = String::new();
    for (name, value) in pairs {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        let pair = format!("{name}='{quoted}' ");
        if !is_allowed(name, value) || pair.parse::<Config>().is_err() {
            return Err(rule_for(name));
        }
        whole += &pair;
    }
    whole
        .parse()
        .map_err(|_| Invalid::Rule("its parameters do not go together"))
}

/// The rule for the parameter's value, which is broken.
pub fn rule_for(name: &str) -> Invalid {
    let known = PARAMETERS.iter().find(|(known, _)| *known == name);
    Invalid::Rule(known.map_or("it is not allowed", |(_, rule)| rule))
}

/// Whether the value is what the parameter is for. The client library or the server would take more, and show the value in
/// errors: a piece of a password, or a whole connection string in the wrong place.
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

/// `-c name=value`, `-cname=value` or `--name=value`, several with spaces between.
fn are_options(options: &str) -> bool {
    // A backslash takes a space into the value.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let pairs = parse(text)?.into_iter();
        Ok(pairs
            .map(|(name, value)| format!("{name}|{value}"))
            .collect())
    }

    #[test]
    fn pairs_are_read_as_libpq_reads_them() {
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
        for (text, pairs) in cases {
            assert_eq!(read(text).unwrap(), pairs, "{text}");
        }
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
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
        for (text, pairs) in cases {
            assert_eq!(read(text).unwrap(), pairs, "{text}");
        }
    }

    #[test]
    fn options_are_settings() {
        for good in ["-c a=b", "-ca=b --c=d", r"-c a=b\ c -c d=e"] {
            assert!(are_options(good), "{good}");
        }
        for bad in ["a", "-c", "-c a", "-c a=b c=d", "-d 2", "--"] {
            assert!(!are_options(bad), "{bad}");
        }
    }
}
