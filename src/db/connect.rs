//! Connecting to the servers of DATABASE_URL: in their order, over TLS where it is asked for, each within a time limit.
//!
//! `r2d2_postgres` makes the clients; its manager connects to one server without a deadline. So there is one of its
//! managers for each server, and [`Connector`] tries them in turn, each attempt in a thread of its own that is left behind
//! when its time is over.
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
use r2d2::ManageConnection;
use r2d2_postgres::PostgresConnectionManager;

use super::error::describe;
use super::url::{DatabaseUrl, Verification};
use super::{Sql, sql};

const KEEPS_SESSION: Sql = sql!("probes/keeps_session", []);

/// A setting that has no effect. A pooler which gives each transaction another connection does not keep the settings of
/// a connection's start: a session in which this one is missing is behind such a pooler.
const MARK: &str = "-c movies_api.session=kept";

/// The most attempts at one server that may hang at the same time. The client library limits nothing after the TCP
/// connection, so a server that accepts and then is silent holds each attempt and its thread until it wakes.
const MAX_HANGING_ATTEMPTS: usize = 8;

/// The file descriptors that must be free before an attempt: what one connection needs, and as many again for other
/// threads that open some at the same moment.
const SPARE_DESCRIPTORS: usize = 8;

/// Connects the clients of one server, and checks them.
type ClientManager = PostgresConnectionManager<MakeTlsConnector>;

/// The parsed DATABASE_URL: one server, or several of which one takes writes. Clones share what is known of the servers.
#[derive(Clone)]
pub struct ConnectionConfig {
    servers: Vec<Arc<Server>>,
    options: String,
    connect_timeout: Duration,
    tls: MakeTlsConnector,
}

struct Server {
    config: Config,
    /// Attempts to connect that have not ended, including those that have timed out here.
    attempts: AtomicUsize,
    /// Whether the latest attempt timed out.
    has_timed_out: AtomicBool,
}

/// Connects clients that have the same settings. One for each pool.
pub struct Connector {
    servers: Vec<Arc<ServerManagers>>,
    connect_timeout: Duration,
}

/// The managers of one server.
struct ServerManagers {
    server: Arc<Server>,
    with_settings: ClientManager,
    /// For poolers that reject settings at a connection's start.
    without_settings: ClientManager,
}

/// A client, and what the server keeps for it.
pub struct ConnectedClient {
    pub client: Client,
    /// Whether settings and prepared statements outlive a transaction.
    pub keeps_state: bool,
}

/// Why no server could be connected to.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct ConnectError {
    reason: String,
    /// Whether another attempt would fail in the same way: a wrong password, a database that does not exist.
    pub is_permanent: bool,
}

impl ConnectError {
    /// An error that another attempt may not meet.
    pub fn temporary(reason: impl ToString) -> ConnectError {
        ConnectError {
            reason: reason.to_string(),
            is_permanent: false,
        }
    }
}

impl FromStr for ConnectionConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<ConnectionConfig, String> {
        let url: DatabaseUrl = text.parse()?;
        let tls = make_tls(&url)?;
        let servers = url.servers.into_iter().map(|config| {
            Arc::new(Server {
                config,
                attempts: AtomicUsize::new(0),
                has_timed_out: AtomicBool::new(false),
            })
        });
        Ok(ConnectionConfig {
            servers: servers.collect(),
            options: url.options,
            connect_timeout: url.connect_timeout,
            tls,
        })
    }
}

impl fmt::Debug for ConnectionConfig {
    /// Writes the servers' names only, since the configuration holds a password.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let servers = self.servers.iter().map(|server| server.name());
        formatter.debug_list().entries(servers).finish()
    }
}

fn make_tls(url: &DatabaseUrl) -> Result<MakeTlsConnector, String> {
    let mut builder = TlsConnector::builder();
    builder
        .danger_accept_invalid_certs(url.verification == Verification::None)
        .danger_accept_invalid_hostnames(url.verification != Verification::Host);
    postgres_native_tls::set_postgresql_alpn(&mut builder);
    if let Some(path) = &url.root_certificates {
        let describe_error = |error: String| format!("sslrootcert {}: {error}", path.display());
        let text = std::fs::read(path).map_err(|error| describe_error(error.to_string()))?;
        let certificates = Certificate::stack_from_pem(&text)
            .map_err(|error| describe_error(error.to_string()))?;
        if certificates.is_empty() {
            return Err(describe_error("it contains no certificate".to_owned()));
        }
        builder.disable_built_in_roots(true);
        for certificate in certificates {
            builder.add_root_certificate(certificate);
        }
    }
    let connector = builder.build().map_err(|error| format!("TLS: {error}"))?;
    Ok(MakeTlsConnector::new(connector))
}

impl ConnectionConfig {
    /// Returns a connector whose sessions begin with these settings, given in the form of the server's command line.
    pub fn connector(&self, settings: &str) -> Connector {
        // Of two values of a setting the last counts, so those of DATABASE_URL come last.
        let options = format!("{MARK} {settings} {}", self.options);
        let servers = self.servers.iter().map(|server| {
            let mut config = server.config.clone();
            let without_settings = ClientManager::new(config.clone(), self.tls.clone());
            config.options(&options);
            Arc::new(ServerManagers {
                server: Arc::clone(server),
                with_settings: ClientManager::new(config, self.tls.clone()),
                without_settings,
            })
        });
        Connector {
            servers: servers.collect(),
            connect_timeout: self.connect_timeout,
        }
    }
}

impl Connector {
    /// Connects to the first server that accepts.
    ///
    /// # Errors
    /// The reason of each server. The error is permanent only if it is so for every server.
    pub fn connect(&self) -> Result<ConnectedClient, ConnectError> {
        let mut reasons = Vec::new();
        let mut is_permanent = true;
        // Servers whose latest attempt timed out come last, since each costs the whole time limit.
        let mut servers: Vec<_> = self.servers.iter().collect();
        servers.sort_by_key(|managers| managers.server.has_timed_out.load(Ordering::Relaxed));
        for managers in servers {
            match connect_in_thread(managers, self.connect_timeout) {
                Ok(client) => return Ok(client),
                Err(error) => {
                    is_permanent &= error.is_permanent;
                    reasons.push(format!("{}: {error}", managers.server.name()));
                }
            }
        }
        Err(ConnectError {
            reason: reasons.join("; "),
            is_permanent,
        })
    }
}

fn connect_in_thread(
    managers: &Arc<ServerManagers>,
    timeout: Duration,
) -> Result<ConnectedClient, ConnectError> {
    let attempt = Attempt(Arc::clone(&managers.server));
    if attempt.0.attempts.fetch_add(1, Ordering::Relaxed) >= MAX_HANGING_ATTEMPTS {
        let reason = "earlier attempts to connect have had no response";
        return Err(ConnectError::temporary(reason));
    }
    let (sender, receiver) = sync_channel(1);
    let thread_managers = Arc::clone(managers);
    let started = thread::Builder::new()
        .name("connect".to_owned())
        .spawn(move || {
            let client = check_descriptors().and_then(|()| {
                thread_managers.connect().map_err(|error| ConnectError {
                    reason: describe(&error),
                    is_permanent: is_permanent(&error),
                })
            });
            drop(attempt);
            // Fails past the timeout: then the client is dropped, which closes the connection.
            _ = sender.send(client);
        });
    started.map_err(ConnectError::temporary)?;
    // Also an error if the thread panicked.
    let received = receiver.recv_timeout(timeout);
    let has_timed_out = &managers.server.has_timed_out;
    has_timed_out.store(received.is_err(), Ordering::Relaxed);
    received.unwrap_or_else(|_| Err(ConnectError::temporary("no response in time")))
}

/// Counts an attempt until it is dropped.
struct Attempt(Arc<Server>);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.attempts.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes sure that a connection's file descriptors are available. Without them the crate postgres 0.19 panics (it unwraps
/// the creation of its runtime), where for us this is a database that cannot be reached for now.
fn check_descriptors() -> Result<(), ConnectError> {
    let spare: io::Result<Vec<File>> = (0..SPARE_DESCRIPTORS)
        .map(|_| File::open("/dev/null"))
        .collect();
    spare.map(drop).map_err(ConnectError::temporary)
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
}

impl ServerManagers {
    fn connect(&self) -> Result<ConnectedClient, postgres::Error> {
        let (client, keeps_state) = match self.with_settings.connect() {
            Err(error) if error.as_db_error().is_some_and(rejects_settings) => {
                let mut client = self.without_settings.connect()?;
                // A pooler may accept clients while its server is away: one round trip tells.
                self.without_settings.is_valid(&mut client)?;
                (client, false)
            }
            client => {
                let mut client = client?;
                let row = client.query_typed_one(KEEPS_SESSION.text, &[])?;
                (client, row.try_get("keeps_session")?)
            }
        };
        Ok(ConnectedClient {
            client,
            keeps_state,
        })
    }
}

/// Whether another attempt would fail in the same way: the server has rejected this one for a reason that stays, or its
/// certificate is not trusted.
fn is_permanent(error: &postgres::Error) -> bool {
    const TEMPORARY: [&SqlState; 5] = [
        &SqlState::CANNOT_CONNECT_NOW,
        &SqlState::TOO_MANY_CONNECTIONS,
        &SqlState::ADMIN_SHUTDOWN,
        &SqlState::CRASH_SHUTDOWN,
        // PgBouncer uses it for every error of its server, temporary or not.
        &SqlState::PROTOCOL_VIOLATION,
    ];
    match error.code() {
        Some(code) => !TEMPORARY.contains(&code),
        None => {
            std::error::Error::source(error).is_some_and(|cause| cause.is::<native_tls::Error>())
        }
    }
}

/// Whether this is PgBouncer's error for `options` at a connection's start, which it rejects unless it is configured to
/// ignore them.
fn rejects_settings(error: &DbError) -> bool {
    *error.code() == SqlState::PROTOCOL_VIOLATION && error.message().contains("startup parameter")
}
