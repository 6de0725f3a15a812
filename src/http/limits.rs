//! The limits of the server with their defaults, the classes of requests, and the system's limit of open files.
use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The upper bound of the default for [`Limits::max_connections`]: each open connection costs the kernel some
/// kilobytes.
const MAX_DEFAULT_CONNECTIONS: u64 = 65_536;

/// File descriptors that are kept free for files, the log, the poller and connections that are being rejected.
const RESERVED_FILES: u64 = 64;

/// File descriptors of one connection to another server: its socket, and the two epolls and the eventfd with which the
/// crate postgres waits for it.
const FILES_PER_OUTGOING_CONNECTION: u64 = 4;

/// The class of a request, decided from its method and target before its handler runs. Each class but `Immediate` has
/// a waiting line and limits of its own, so that slow handlers of one class leave workers for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Handled by the worker that received the request, without a permit and without waiting. Its handler must not
    /// block.
    Immediate,
    /// All requests that belong to no other class.
    Ordinary,
    /// Reads whose cost varies.
    Heavy,
    /// Requests that change data.
    Write,
    /// Requests that verify a password.
    SignIn,
}

/// The limits of one class, in addition to the total of [`Limits::workers`].
#[derive(Clone, Copy, Debug)]
pub struct ClassLimits {
    /// Handlers of this class that run at once, at least 1. Further requests wait in the line of the class.
    pub max_in_flight: usize,
    /// Once a request of this class has waited longer than this, new ones and the newer half of the line are answered
    /// 503.
    pub shed_after: Duration,
}

/// Everything that a client could otherwise let grow without bound. Each field limits either one client or all clients
/// together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Handlers that run at once. The server has one thread more. Default 64.
    pub workers: usize,
    /// Limits of [`Class::Ordinary`]: by default no limit of its own, 1 s.
    pub ordinary: ClassLimits,
    /// Limits of [`Class::Heavy`]: by default 8, 1 s.
    pub heavy: ClassLimits,
    /// Limits of [`Class::Write`]: by default half of the workers, 4 s.
    pub write: ClassLimits,
    /// Limits of [`Class::SignIn`]: by default three eighths of the workers, 4 s.
    pub sign_in: ClassLimits,
    /// Open connections. Further ones are answered 503 and closed. Default 1,024.
    pub max_connections: usize,
    /// Bytes of a request's head, from its first byte to the end of its empty line; 431 beyond. Default 16 KiB.
    pub max_head_bytes: usize,
    /// Headers of a request; 431 beyond. Default 100, at most [`Limits::MAX_HEADERS`].
    pub max_headers: usize,
    /// Bytes of a request's target; 414 beyond. Default 8 KiB.
    pub max_target_bytes: usize,
    /// Bytes of a request's body; 413 beyond, before any of it is read if Content-Length announces it. Default 1 MiB.
    pub max_body_bytes: usize,
    /// Bytes that all connections together may hold: bodies that are being received, and responses that clients have
    /// not taken yet. Beyond it, a request whose body exceeds 16 KiB is answered 503, and a connection whose response
    /// would have to be held is closed. Default 32 MiB.
    pub max_buffered_bytes: usize,
    /// From a head's first byte to its last; then 408. Default 10 s.
    pub head_timeout: Duration,
    /// From a head's last byte to the body's last; then 408. Default 30 s.
    pub body_timeout: Duration,
    /// How long a connection may be silent between requests, or before the first; then it is closed without a
    /// response. Default 75 s.
    pub idle_timeout: Duration,
    /// From a response's first byte to its last, if the client does not take it at once; then the connection is closed.
    /// Default 30 s.
    pub write_timeout: Duration,
    /// From a request's last byte to its response, including the wait for a permit. A request that is still in the
    /// admission queue then is answered 503. A handler is given the deadline and must return by it: its response is sent
    /// however late it is. Default 9 s.
    pub request_timeout: Duration,
    /// How long a request may wait for a permit; then 503. Default 5 s.
    pub queue_timeout: Duration,
    /// From the shutdown to the return of [`Server::run`](super::Server::run), whatever is still in flight. Default 8 s.
    pub drain_timeout: Duration,
}

impl Limits {
    /// The upper bound of [`Limits::max_headers`].
    pub const MAX_HEADERS: usize = 128;

    /// Returns the defaults for a number of workers. Writes and sign-ins together leave an eighth of the workers to
    /// reads, even if all their handlers are stuck.
    #[must_use]
    pub fn for_workers(workers: usize) -> Limits {
        let class = |max_in_flight: usize, shed_after_seconds| ClassLimits {
            max_in_flight: max_in_flight.max(1),
            shed_after: Duration::from_secs(shed_after_seconds),
        };
        Limits {
            workers,
            ordinary: class(usize::MAX, 1),
            heavy: class(8, 1),
            // A batch that waits for one locked row takes two seconds, and its other inputs succeed.
            write: class(workers / 2, 4),
            // Verifying a password takes long, so a long line does not mean that something is wrong.
            sign_in: class(workers * 3 / 8, 4),
            max_connections: 1024,
            max_head_bytes: 16 * 1024,
            max_headers: 100,
            max_target_bytes: 8 * 1024,
            max_body_bytes: 1024 * 1024,
            max_buffered_bytes: 32 * 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(9),
            queue_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(8),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::for_workers(64)
    }
}

/// Raises the process's limit of open files to the maximum that the system allows it. Returns how many client
/// connections fit into it beside `outgoing` connections to other servers: 16 to 65,536.
///
/// # Errors
/// If the system refuses the new limit.
pub fn raise_open_file_limit(outgoing: u64) -> io::Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let current = limit.maximum;
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
    }
    let files = limit.maximum.unwrap_or(u64::MAX);
    let connections = files.saturating_sub(required_open_files(Some(0), outgoing));
    Ok(usize::try_from(connections.clamp(16, MAX_DEFAULT_CONNECTIONS)).unwrap_or(16))
}

/// The inverse of [`raise_open_file_limit`]: the limit of open files under which `connections` (by default the maximum of
/// the default) fit beside `outgoing` connections.
#[must_use]
pub fn required_open_files(connections: Option<u64>, outgoing: u64) -> u64 {
    connections.unwrap_or(MAX_DEFAULT_CONNECTIONS)
        + RESERVED_FILES
        + outgoing * FILES_PER_OUTGOING_CONNECTION
}
