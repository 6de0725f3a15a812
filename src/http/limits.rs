//! Every bound of the server, together, with its default, and the system's own bound. Knows no sockets.
use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::class::ClassLimits;

/// More connections than this are never the default: each costs the kernel some kilobytes.
const MOST_CONNECTIONS: u64 = 65_536;

/// Descriptors that are left for files, the log, the poller and refused clients.
const RESERVE: u64 = 64;

/// Descriptors of one connection to another server: its socket, and the two epolls and the eventfd that its client, the
/// crate postgres, waits with.
const FILES_OF_OTHER: u64 = 4;

/// What the server allows. Every field has a bound that holds for each client alone or for all together, so that
/// nothing a client does grows without end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Handlers that run at once; there is one thread more than that. 64.
    pub workers: usize,
    /// Those of [`Class::Ordinary`](super::Class::Ordinary): none but `workers`, 1 s.
    pub ordinary: ClassLimits,
    /// Those of [`Class::Heavy`](super::Class::Heavy): 8, 1 s.
    pub heavy: ClassLimits,
    /// Those of [`Class::Write`](super::Class::Write): half of the workers, 1 s.
    pub write: ClassLimits,
    /// Those of [`Class::SignIn`](super::Class::SignIn): three eighths of the workers, 4 s.
    pub sign_in: ClassLimits,
    /// Connections open at once; one more is answered 503 and closed. 1,024.
    pub connections: usize,
    /// Bytes of a request's head, from its first to the end of its empty line; past it 431. 16 KiB.
    pub head_bytes: usize,
    /// Fields of a request's head; past it 431. 100, and at most [`Limits::MOST_FIELDS`].
    pub head_fields: usize,
    /// Bytes of a request's target; past it 414. 8 KiB.
    pub target_bytes: usize,
    /// Bytes of a request's body; past it 413, from Content-Length before any of it is read. 1 MiB.
    pub body_bytes: usize,
    /// Bytes of all bodies together that are on their way, and of all answers that are not taken; past it 503 to whose
    /// body grows past 16 KiB, and the end of a connection that does not take as much. 32 MiB.
    pub bodies_bytes: usize,
    /// From a head's first byte to its last; then 408. 10 s.
    pub head_deadline: Duration,
    /// From a head's last byte to its body's last; then 408. 30 s.
    pub body_deadline: Duration,
    /// How long a connection may be silent between requests, or before the first; then it is closed without a
    /// word. 75 s.
    pub idle_deadline: Duration,
    /// From an answer's first byte to its last, when the client does not take it at once; then the connection is
    /// closed. 30 s.
    pub write_deadline: Duration,
    /// From a request's last byte to its answer, the wait for a permit included. The handler is told the instant at
    /// which it ends; if it has not answered shortly after, the server answers 503 in its place, and drops its late
    /// answer. 9 s.
    pub request_timeout: Duration,
    /// How long any request may wait for a permit; then 503. 5 s.
    pub queue_timeout: Duration,
    /// From the stop to the return of `run`, whatever is still in flight. 8 s.
    pub drain_deadline: Duration,
}

impl Limits {
    /// No more fields than this are read, whatever `head_fields` says.
    pub const MOST_FIELDS: usize = 128;

    /// The defaults for this many workers. Writes and sign-ins that hang leave an eighth of them to reads.
    #[must_use]
    pub fn for_workers(workers: usize) -> Limits {
        let class = |max_in_flight: usize| ClassLimits {
            max_in_flight: max_in_flight.max(1),
            shed_after: Duration::from_secs(1),
        };
        Limits {
            workers,
            ordinary: class(usize::MAX),
            heavy: class(8),
            write: ClassLimits {
                // A batch that one locked row blocks takes two seconds, and its neighbours succeed.
                shed_after: Duration::from_secs(4),
                ..class(workers / 2)
            },
            sign_in: ClassLimits {
                // A password takes long to verify, so those who wait for it are many before anything is wrong.
                shed_after: Duration::from_secs(4),
                ..class(workers * 3 / 8)
            },
            connections: 1024,
            head_bytes: 16 * 1024,
            head_fields: 100,
            target_bytes: 8 * 1024,
            body_bytes: 1024 * 1024,
            bodies_bytes: 32 * 1024 * 1024,
            head_deadline: Duration::from_secs(10),
            body_deadline: Duration::from_secs(30),
            idle_deadline: Duration::from_secs(75),
            write_deadline: Duration::from_secs(30),
            request_timeout: Duration::from_secs(9),
            queue_timeout: Duration::from_secs(5),
            drain_deadline: Duration::from_secs(8),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::for_workers(64)
    }
}

/// Raises the process's limit of open descriptors to the most that the system allows it, and answers how many
/// connections fit into it beside so many connections of our own to other servers: 16 to 65,536.
///
/// # Errors
/// If the system refuses the raise.
pub fn raise_limit(others: u64) -> io::Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised)?;
    }
    let descriptors = limit.maximum.unwrap_or(u64::MAX);
    let kept = RESERVE + others * FILES_OF_OTHER;
    let left = descriptors.saturating_sub(kept);
    Ok(usize::try_from(left.clamp(16, MOST_CONNECTIONS)).unwrap_or(16))
}

/// The limit of open files that leaves this many connections, or those of the default, beside `others`: what
/// [`raise_limit`] reckons, the other way round.
#[must_use]
pub fn files_for(connections: Option<u64>, others: u64) -> u64 {
    connections.unwrap_or(MOST_CONNECTIONS) + RESERVE + others * FILES_OF_OTHER
}
