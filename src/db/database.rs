//! The way to the database: its servers in their order, each within a deadline, over TLS where that is asked for.
use std::fmt;
use std::fs::File;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use native_tls::{Certificate, TlsConnector};
use postgres::config::Host;
use postgres::error::{DbError, SqlState};
use postgres::{Client, Config};
use postgres_native_tls::MakeTlsConnector;

use super::address::{Address, Trust};
use super::error::describe;
use super::{Sql, sql};

const KEEPS_SESSION: Sql = sql!("probes/keeps_session", []);

/// A setting without a meaning of its own. A connection pooler that gives each transaction another connection keeps
/// nothing that was set at the start of one, so a session without it is such a pooler's.
const MARK: &str = "-c movies_api.session=kept";

/// Attempts at one server that may hang at once. The client library bounds none past the first packet, so a server
/// that accepts and then says nothing holds each attempt, and its thread, until it wakes.
const HANGING_ATTEMPTS: usize = 8;

/// What a connection takes of them, and as many again for whoever takes some at the same moment.
const DESCRIPTORS: usize = 8;

/// Where the database is: one server, or several of which one takes writes.
#[derive(Clone)]
pub struct Database {
    servers: Arc<[Server]>,
    options: String,
    connect_deadline: Duration,
    tls: MakeTlsConnector,
}

struct Server {
    config: Config,
    attempts: Arc<AtomicUsize>,
    /// Whether the last attempt that ended had no answer in time.
    is_silent: AtomicBool,
}

/// A connection, and what may be done with it.
pub struct Opened {
    /// The connection.
    pub client: Client,
    /// Whether the server keeps what is set or prepared on it.
    pub keeps_state: bool,
}

/// Why no server could be reached.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Unreachable {
    reason: String,
    /// Whether another try would be answered the same: a wrong password, no such database.
    pub is_refusal: bool,
}

impl Unreachable {
    /// A reason that another try may not meet.
    pub fn for_now(reason: impl ToString) -> Unreachable {
        Unreachable {
            reason: reason.to_string(),
            is_refusal: false,
        }
    }
}

impl FromStr for Database {
    type Err = String;

    fn from_str(text: &str) -> Result<Database, String> {
        let address: Address = text.parse()?;
        let tls = make_tls(&address)?;
        let servers = address.servers.into_iter().map(|config| Server {
            config,
            attempts: Arc::default(),
            is_silent: AtomicBool::new(false),
        });
        Ok(Database {
            servers: servers.collect(),
            options: address.options,
            connect_deadline: address.connect_deadline,
            tls,
        })
    }
}

impl fmt::Debug for Database {
    /// Never the password.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let servers = self.servers.iter().map(Server::name);
        formatter.debug_list().entries(servers).finish()
    }
}

fn make_tls(address: &Address) -> Result<MakeTlsConnector, String> {
    let mut builder = TlsConnector::builder();
    builder
        .danger_accept_invalid_certs(address.trust == Trust::Anybody)
        .danger_accept_invalid_hostnames(address.trust != Trust::Host);
    postgres_native_tls::set_postgresql_alpn(&mut builder);
    if let Some(path) = &address.authorities {
        let told = |error: String| format!("sslrootcert {}: {error}", path.display());
        let text = std::fs::read(path).map_err(|error| told(error.to_string()))?;
        let authorities =
            Certificate::stack_from_pem(&text).map_err(|error| told(error.to_string()))?;
        if authorities.is_empty() {
            return Err(told("it holds no certificate".to_owned()));
        }
        builder.disable_built_in_roots(true);
        for authority in authorities {
            builder.add_root_certificate(authority);
        }
    }
    let connector = builder.build().map_err(|error| format!("TLS: {error}"))?;
    Ok(MakeTlsConnector::new(connector))
}

impl Database {
    /// A connection to the first server that gives one, with these settings in the form of the server's command line.
    pub fn connect(&self, settings: &str) -> Result<Opened, Unreachable> {
        // What DATABASE_URL says comes last, and counts.
        let options = format!("{MARK} {settings} {}", self.options);
        let mut reasons = Vec::new();
        let mut is_refusal = true;
        // In their order; those that left the last attempt without an answer come last, since each costs the whole deadline.
        let mut servers: Vec<_> = self.servers.iter().collect();
        servers.sort_by_key(|server| server.is_silent.load(Ordering::Relaxed));
        for server in servers {
            match server.connect(&options, &self.tls, self.connect_deadline) {
                Ok(session) => return Ok(session),
                Err(failure) => {
                    is_refusal &= failure.is_refusal;
                    reasons.push(format!("{}: {failure}", server.name()));
                }
            }
        }
        Err(Unreachable {
            reason: reasons.join("; "),
            is_refusal,
        })
    }
}

impl Server {
    fn name(&self) -> String {
        let port = self.config.get_ports().first().copied().unwrap_or_default();
        match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => format!("{name}:{port}"),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        }
    }

    /// One attempt in a thread of its own, which is left behind if it hangs.
    fn connect(
        &self,
        options: &str,
        tls: &MakeTlsConnector,
        deadline: Duration,
    ) -> Result<Opened, Unreachable> {
        let attempt = Attempt(Arc::clone(&self.attempts));
        if attempt.0.fetch_add(1, Ordering::Relaxed) >= HANGING_ATTEMPTS {
            return Err(Unreachable::for_now("it does not answer earlier attempts"));
        }
        let (config, tls, options) = (self.config.clone(), tls.clone(), options.to_owned());
        let (sender, receiver) = sync_channel(1);
        let started = thread::Builder::new()
            .name("connect".to_owned())
            .spawn(move || {
                let session = find_descriptors().and_then(|()| {
                    open_session(&config, tls, &options).map_err(|error| Unreachable {
                        reason: describe(&error),
                        is_refusal: is_refusal(&error),
                    })
                });
                drop(attempt);
                // Nobody takes what comes too late: it is closed.
                _ = sender.send(session);
            });
        started.map_err(Unreachable::for_now)?;
        let answer = receiver.recv_timeout(deadline);
        self.is_silent.store(answer.is_err(), Ordering::Relaxed);
        match answer {
            Ok(session) => session,
            Err(_) => Err(Unreachable::for_now("no answer in time")),
        }
    }
}

/// Counts an attempt while it lives.
struct Attempt(Arc<AtomicUsize>);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a connection's descriptors are to be had. The crate postgres panics without (it unwraps the making of its
/// runtime, postgres 0.19), where for us a database that is out of reach for now is nothing unusual.
fn find_descriptors() -> Result<(), Unreachable> {
    let spare: io::Result<Vec<File>> = (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect();
    spare.map(drop).map_err(Unreachable::for_now)
}

fn open_session(
    config: &Config,
    tls: MakeTlsConnector,
    options: &str,
) -> Result<Opened, postgres::Error> {
    let mut client = match config.clone().options(options).connect(tls.clone()) {
        Ok(client) => client,
        Err(error) if error.as_db_error().is_some_and(refuses_settings) => {
            return Ok(Opened {
                client: config.connect(tls)?,
                keeps_state: false,
            });
        }
        Err(error) => return Err(error),
    };
    let rows = client.query_typed(KEEPS_SESSION.text, &[])?;
    let keeps_state = rows.first().map(|row| row.try_get("keeps_session"));
    Ok(Opened {
        keeps_state: keeps_state.transpose()?.unwrap_or(false),
        client,
    })
}

/// Whether another try would be answered the same: the server's own refusal, but one for the time being, or a
/// certificate that is not trusted.
fn is_refusal(error: &postgres::Error) -> bool {
    const FOR_NOW: [&SqlState; 5] = [
        &SqlState::CANNOT_CONNECT_NOW,
        &SqlState::TOO_MANY_CONNECTIONS,
        &SqlState::ADMIN_SHUTDOWN,
        &SqlState::CRASH_SHUTDOWN,
        // A pooler's words for all that its server refuses, for now or for good.
        &SqlState::PROTOCOL_VIOLATION,
    ];
    match error.code() {
        Some(code) => !FOR_NOW.contains(&code),
        None => {
            std::error::Error::source(error).is_some_and(|cause| cause.is::<native_tls::Error>())
        }
    }
}

/// PgBouncer knows no `options` at a connection's start, unless it was told to ignore them.
fn refuses_settings(refusal: &DbError) -> bool {
    *refusal.code() == SqlState::PROTOCOL_VIOLATION
        && refusal.message().contains("startup parameter")
}
