//! DATABASE_URL: connection strings as libpq takes them, with the words that the client library does not know.
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use postgres::Config;
use postgres::config::{Host, SslMode};
use secrecy::{ExposeSecret, SecretString};

use super::connection_string::{Invalid, parse, rule_for, to_config};

/// Where the database is, and whom to take for it.
#[derive(Debug)]
pub struct Address {
    /// One for each server, in the order in which they are tried.
    pub servers: Vec<Config>,
    /// Settings for the session in the form of the server's command line, sent at its start.
    pub options: String,
    /// How long one server is waited for, name, handshake and password together.
    pub connect_deadline: Duration,
    /// What of the server's certificate is checked.
    pub trust: Trust,
    /// The authorities that may have signed it, in PEM; without a file, those of the operating system.
    pub authorities: Option<PathBuf>,
}

/// What of a server's certificate is checked: libpq's sslmode, as far as the client library does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nothing: `prefer` and `require`.
    Anybody,
    /// Who signed it: `verify-ca`, and `require` with a file of authorities.
    Authority,
    /// That, and whether it is this host's: `verify-full`.
    Host,
}

/// The parameters that the client library does not know, or reads in another way.
const OURS: [&str; 4] = ["sslmode", "sslrootcert", "passfile", "tcp_user_timeout"];

/// A server that vanished is noticed within about ten seconds: by its silence towards what was sent to it, and towards
/// probes where nothing was.
const DEFAULTS: [(&str, &str); 5] = [
    ("application_name", "movies-api"),
    ("connect_timeout", "3"),
    ("keepalives_idle", "5"),
    ("keepalives_interval", "2"),
    ("keepalives_retries", "3"),
];
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a server without a name is: Debian's folder of sockets.
const SOCKETS: &str = "/var/run/postgresql";

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Address, Invalid> {
        let mut pairs = parse(text)?;
        let mut take = |name: &str| {
            let position = pairs.iter().position(|(given, _)| *given == name);
            position.map(|position| pairs.remove(position).1)
        };
        let [mode, authorities, passfile, user_timeout] = OURS.map(&mut take);
        for (name, value) in DEFAULTS {
            if pairs.iter().all(|(given, _)| *given != name) {
                pairs.push((name, value.to_owned()));
            }
        }
        let authorities = authorities.filter(|path| path != "system");
        let (mode, trust) = match mode.as_deref() {
            Some("disable") => (SslMode::Disable, Trust::Anybody),
            Some("allow" | "prefer") | None => (SslMode::Prefer, Trust::Anybody),
            Some("require") if authorities.is_none() => (SslMode::Require, Trust::Anybody),
            Some("require" | "verify-ca") => (SslMode::Require, Trust::Authority),
            Some("verify-full") => (SslMode::Require, Trust::Host),
            Some(_) => return Err(rule_for("sslmode")),
        };
        let user_timeout = match user_timeout.map(|value| value.parse()) {
            None => TCP_USER_TIMEOUT,
            Some(Ok(milliseconds)) => Duration::from_millis(milliseconds),
            Some(Err(_)) => return Err(rule_for("tcp_user_timeout")),
        };
        let mut whole = to_config(&pairs)?;
        whole.ssl_mode(mode).tcp_user_timeout(user_timeout);
        if whole.get_hosts().is_empty() && whole.get_hostaddrs().is_empty() {
            whole.host(SOCKETS);
        }
        let passwords = match passfile {
            Some(path) if whole.get_password().is_none() => read_passwords(path.into())?,
            _ => SecretString::default(),
        };
        let deadline = whole.get_connect_timeout().copied();
        Ok(Address {
            options: whole.get_options().unwrap_or_default().to_owned(),
            servers: servers_of(&whole, passwords.expose_secret())?,
            connect_deadline: deadline.unwrap_or(Duration::from_secs(3)),
            trust,
            authorities: authorities.map(PathBuf::from),
        })
    }
}

fn read_passwords(path: PathBuf) -> Result<SecretString, Invalid> {
    match std::fs::read_to_string(&path) {
        Ok(passwords) => Ok(passwords.into()),
        Err(error) => Err(Invalid::File {
            name: "passfile",
            path,
            reason: error.to_string(),
        }),
    }
}

/// One configuration for each server of the whole, so that each can be tried by itself, with a password of its own.
fn servers_of(whole: &Config, passwords: &str) -> Result<Vec<Config>, Invalid> {
    let (hosts, addresses, ports) = (whole.get_hosts(), whole.get_hostaddrs(), whole.get_ports());
    let count = hosts.len().max(addresses.len());
    let fits = |given: usize| given == 0 || given == count;
    if !fits(hosts.len()) || !fits(addresses.len()) || (ports.len() > 1 && ports.len() != count) {
        return Err(Invalid::Rule(
            "there are not as many ports or addresses as hosts",
        ));
    }
    let mut servers = Vec::new();
    for place in 0..count {
        let port = ports.get(place).or(ports.first()).copied().unwrap_or(5432);
        let mut server = Config::new();
        let mut name = match hosts.get(place) {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.to_string_lossy().into_owned(),
            None => String::new(),
        };
        if let Some(address) = addresses.get(place) {
            server.hostaddr(*address);
            if name.is_empty() {
                name = address.to_string();
            }
        }
        server
            .host(&name)
            .port(port)
            .ssl_mode(whole.get_ssl_mode())
            .ssl_negotiation(whole.get_ssl_negotiation())
            .channel_binding(whole.get_channel_binding())
            .target_session_attrs(whole.get_target_session_attrs())
            .keepalives(whole.get_keepalives())
            .keepalives_idle(whole.get_keepalives_idle());
        if name.starts_with('/') {
            // A socket needs no cipher: PostgreSQL offers none there.
            server.ssl_mode(SslMode::Disable);
        }
        whole.get_user().map(|user| server.user(user));
        whole.get_dbname().map(|name| server.dbname(name));
        whole
            .get_application_name()
            .map(|name| server.application_name(name));
        whole
            .get_tcp_user_timeout()
            .map(|time| server.tcp_user_timeout(*time));
        whole
            .get_keepalives_interval()
            .map(|time| server.keepalives_interval(time));
        whole
            .get_keepalives_retries()
            .map(|retries| server.keepalives_retries(retries));
        // A name may have two addresses: the second gets its turn.
        whole
            .get_connect_timeout()
            .map(|time| server.connect_timeout(*time / 2));
        let user = whole.get_user().unwrap_or_default();
        let wanted = [
            &name,
            &port.to_string(),
            whole.get_dbname().unwrap_or(user),
            user,
        ];
        match whole.get_password() {
            Some(password) => server.password(password),
            None => match find_password(passwords, wanted) {
                Some(password) => server.password(password),
                None => &mut server,
            },
        };
        servers.push(server);
    }
    Ok(servers)
}

/// The password of the first line `host:port:database:user:password` that fits; `*` fits all.
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
        let fits = |(field, wanted): (&String, &str)| {
            field == "*" || field == wanted || (field == "localhost" && wanted.starts_with('/'))
        };
        fields.iter().zip(wanted).all(fits).then_some(password)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_of(text: &str) -> Config {
        let address: Address = text.parse().unwrap();
        address.servers.into_iter().next().unwrap()
    }

    #[test]
    fn both_forms_say_the_same() {
        let pairs = r"host=/tmp,b hostaddr='10.0.0.1,10.0.0.2' port=1,2 user = 'a b' password='it\'s \\' dbname=d options='-c a=b'";
        let url = "postgresql://a%20b:it's%20%5C@%2Ftmp:1,b:2/d?hostaddr=10.0.0.1,10.0.0.2&options=-c%20a%3Db";
        for text in [pairs, url] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.options, "-c a=b");
            assert_eq!(address.servers.len(), 2);
            let second = &address.servers[1];
            assert_eq!(second.get_hosts(), [Host::Tcp("b".to_owned())]);
            assert_eq!(second.get_ports(), [2]);
            assert_eq!(second.get_user(), Some("a b"));
            assert_eq!(second.get_password(), Some(&br"it's \"[..]));
            assert_eq!(second.get_dbname(), Some("d"));
            assert_eq!(second.get_application_name(), Some("movies-api"));
        }
    }

    #[test]
    fn whom_to_trust_follows_libpq() {
        let of = |given: &str| {
            let address: Address = format!("host=a {given}").parse().unwrap();
            (address.servers[0].get_ssl_mode(), address.trust)
        };
        assert_eq!(of(""), (SslMode::Prefer, Trust::Anybody));
        assert_eq!(of("sslmode=disable"), (SslMode::Disable, Trust::Anybody));
        assert_eq!(of("sslmode=require"), (SslMode::Require, Trust::Anybody));
        assert_eq!(
            of("sslmode=require sslrootcert=/x"),
            (SslMode::Require, Trust::Authority)
        );
        assert_eq!(
            of("sslmode=verify-ca sslrootcert=/x"),
            (SslMode::Require, Trust::Authority)
        );
        assert_eq!(of("sslmode=verify-full"), (SslMode::Require, Trust::Host));
        let nearby = server_of("postgresql:///movies");
        assert_eq!(nearby.get_hosts(), [Host::Unix(PathBuf::from(SOCKETS))]);
        assert_eq!(nearby.get_ssl_mode(), SslMode::Disable);
        let system: Address = "host=a sslrootcert=system".parse().unwrap();
        assert_eq!(system.authorities, None);
    }

    #[test]
    fn times_have_defaults_and_libpq_s_units() {
        let server = server_of("host=a");
        assert_eq!(server.get_tcp_user_timeout(), Some(&Duration::from_secs(5)));
        assert_eq!(server.get_keepalives_idle(), Duration::from_secs(5));
        let server = server_of("postgres://a/b?tcp_user_timeout=1500&keepalives_count=9");
        assert_eq!(
            server.get_tcp_user_timeout(),
            Some(&Duration::from_millis(1500))
        );
        assert_eq!(server.get_keepalives_retries(), Some(9));
        let address: Address = "host=a connect_timeout=7".parse().unwrap();
        assert_eq!(address.connect_deadline, Duration::from_secs(7));
    }

    #[test]
    fn no_type_of_an_address_shows_the_password() {
        let address: Address = "postgres://u:hunter2@host/db".parse().unwrap();
        assert!(!format!("{address:?} {address:#?}").contains("hunter2"));
    }

    #[test]
    fn a_password_is_of_the_first_line_that_fits() {
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
