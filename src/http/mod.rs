//! An HTTP/1.1 server on threads: RFC 9112 and RFC 9110 over plain TCP, with keep-alive, pipelining, limits for everything
//! that a client can let grow, and a graceful shutdown. Does not depend on the rest of the crate.
//!
//! The application is three functions: a handler `Fn(&rouille::Request, Instant) -> rouille::Response`, which is given its
//! deadline; a classifier, which says under which limits a request runs; and optionally a renderer for the server's own
//! error responses ([`HttpError`]).
//!
//! # Threads
//!
//! ```text
//! thread of Server::run   every 100 ms: connections past their deadline, requests that waited too long, paused accepts;
//!                         then the drain
//! WORKERS + 1 workers     one for each core waits at the poller (leader); the others wait for a slot (followers)
//!
//! leader:    wait for an event -> check its connection out of the slab, or accept one -> read and parse a request
//!            -> admission queue: no permit, and the worker waits for the next event
//!                             '-> a permit: the worker releases its slot, and is no leader any more
//! then it:   runs the handler -> writes the response -> reads the next request, or checks the connection into the slab
//!            -> runs the handler of the next admitted request, or else acquires a slot again
//! ```
//!
//! There is one worker more than handlers may run at once, so one is always left to read requests, to answer
//! [`Class::Immediate`] ones, and to reject others. No worker ever waits for a client.
//!
//! # Who owns a connection
//!
//! At any time a connection (with its socket, its buffered bytes, and its memory reservation) belongs to exactly one of:
//!
//! - the slab, while it waits for an event of its socket or for its deadline: idle between requests, within a head or a
//!   body, while the client takes a response, or while it lingers;
//! - the admission queue, together with its complete request, which waits for a permit;
//! - one thread: a worker that advances it or runs its handler, or the thread of `Server::run` after its deadline.
//!
//! So no lock protects a connection, and only its handler answers a request that has a permit: a handler that returns after
//! its deadline delays its own connection (and, like any handler, occupies its worker). Handlers must therefore bound every
//! wait by the deadline that they are given.
//!
//! # States of a connection
//!
//! ```text
//!  accept
//!    v         head complete           body complete
//!  ReadingHead -------------> ReadingBody ---------> InHandler        (a head without a body goes to InHandler at once)
//!    ^   |                        |                     |
//!    |   | error                  | error               | response of the handler, or 503 from the admission queue
//!    |   v                        v                     v
//!    |   '------------------------+---------------> write to the socket <---.
//!    |                                              |    |                  | writable
//!    |             not the last response            |    | socket full      |
//!    '----------------------------------------------+    '-----------> Writing
//!                                                   | last response
//!                                                   v
//!                               Lingering, if the client may still send; else closed
//! ```
//!
//! The timeouts: in `ReadingHead`, [`Limits::idle_timeout`] before the first byte (then `Lingering`, without a response) and
//! [`Limits::head_timeout`] after it (408); in `ReadingBody`, [`Limits::body_timeout`] (408); in `InHandler`, while the
//! request is queued, [`Limits::queue_timeout`] and [`Limits::request_timeout`] (503); in `Writing`,
//! [`Limits::write_timeout`] (closed); in `Lingering`, those beside `Lingering` in `connection`. The thread of
//! [`Server::run`] enforces all of them.
pub mod body;
pub mod head;

mod admission;
mod connection;
mod limits;
mod listener;
mod memory;
mod poller;
mod response;
mod slab;
mod stats;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rouille::{Request, Response};

use self::admission::AdmissionQueue;
use self::connection::{Connection, WorkerBuffers};
pub use self::limits::{Class, ClassLimits, Limits, raise_open_file_limit, required_open_files};
use self::listener::Listener;
use self::memory::MemoryBudget;
use self::poller::{Poller, PollerSlots};
use self::response::ErrorRenderer;
pub use self::response::{HeaderLookup, HttpError};
use self::slab::ConnectionSlab;
pub use self::stats::Stats;
use self::worker::Shared;

/// How often deadlines are checked, and so how late an action on one may be.
const TICK: Duration = Duration::from_millis(100);

/// The same during the drain, which someone waits for.
const DRAIN_TICK: Duration = Duration::from_millis(10);

/// How long a connection must be silent before the drain closes it. One that was just accepted or answered may have a
/// request under way, which a proxy would not dare to repeat at another instance.
const DRAIN_SILENCE: Duration = Duration::from_millis(500);

/// A server that listens, and answers once [`Server::run`] is called.
pub struct Server {
    shared: Arc<Shared>,
    shutdown_handle: ShutdownHandle,
    shutdown: Receiver<()>,
    address: SocketAddr,
}

/// Shuts a server down, from any thread.
#[derive(Clone)]
pub struct ShutdownHandle(SyncSender<()>);

impl ShutdownHandle {
    /// Begins the shutdown, unless it has begun. Does not wait for it.
    pub fn shut_down(&self) {
        // An error means that it has begun.
        _ = self.0.try_send(());
    }
}

impl Server {
    /// Binds the address and listens; clients wait until the server runs.
    ///
    /// `classify` decides the class of a request and must not block. `handler` is given a request and its deadline, which
    /// is [`Limits::request_timeout`] after the request was complete, and must return by it.
    ///
    /// # Errors
    /// If the address is in use or does not belong to this machine, or no file descriptors are left.
    pub fn bind(
        address: SocketAddr,
        limits: Limits,
        classify: impl Fn(&Request) -> Class + Send + Sync + 'static,
        handler: impl Fn(&Request, Instant) -> Response + Send + Sync + 'static,
    ) -> io::Result<Server> {
        let poller = Poller::new()?;
        let listener = Listener::bind(address, &poller)?;
        let address = listener.socket.local_addr()?;
        let stats = Arc::new(Stats::default());
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let shared = Shared {
            limits,
            poller,
            slots: PollerSlots::new(cores),
            listener: Mutex::new(Some(Arc::new(listener))),
            connections: ConnectionSlab::default(),
            admission: AdmissionQueue::new(&limits, Arc::clone(&stats)),
            memory: Arc::new(MemoryBudget::new(&limits, Arc::clone(&stats))),
            classify: Box::new(classify),
            handler: Box::new(handler),
            errors: ErrorRenderer::default(),
            pipelining_deadline: OnceLock::new(),
            stats,
        };
        let (shutdown_sender, shutdown) = sync_channel(1);
        Ok(Server {
            shared: Arc::new(shared),
            shutdown_handle: ShutdownHandle(shutdown_sender),
            shutdown,
            address,
        })
    }

    /// Sets the function that renders the server's own error responses, which are plain text by default. Must be called
    /// before [`Server::run`], and once. The function is given the error and the headers of the request (none if they were
    /// not received or are malformed). The server sets the status, Retry-After, Connection and Content-Length itself.
    pub fn set_error_renderer(
        &self,
        render: impl Fn(HttpError, &HeaderLookup) -> Response + Send + Sync + 'static,
    ) {
        self.shared.errors.set(Box::new(render));
    }

    /// Returns the bound address, with the port that the system chose for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a handle that shuts this server down.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.shutdown_handle.clone()
    }

    /// Returns the counters and gauges of this server.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.shared.stats)
    }

    /// Serves until it is shut down and drained, which takes at most [`Limits::drain_timeout`]. Handlers that still run
    /// then are left behind on their threads.
    ///
    /// # Errors
    /// If the system cannot start the threads.
    pub fn run(self) -> io::Result<()> {
        worker::use_batch_scheduling();
        let mut workers = Vec::new();
        for _ in 0..=self.shared.limits.workers {
            let shared = Arc::clone(&self.shared);
            let worker = thread::Builder::new().name("worker".to_owned());
            match worker.spawn(move || shared.work()) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    self.shared.end_workers();
                    return Err(error);
                }
            }
        }
        let mut buffers = self.shared.make_buffers();
        while self.shutdown.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            self.shared.sweep(&mut buffers);
        }
        self.shared.drain(&mut buffers);
        self.shared.end_workers();
        if self.shared.admission.is_empty() {
            for worker in workers {
                if worker.join().is_err() {
                    log::error!("a worker panicked");
                }
            }
        }
        Ok(())
    }
}

/// What the thread of [`Server::run`] does.
impl Shared {
    /// Acts on every deadline that has passed.
    fn sweep(&self, buffers: &mut WorkerBuffers) {
        let now = Instant::now();
        let is_expired = |_: &Connection, deadline| deadline <= now;
        for mut connection in self.connections.check_out_where(is_expired) {
            if connection.expire(buffers) {
                self.hand_over(connection);
            } else {
                self.close(connection);
            }
        }
        for pending in self.admission.shed(now) {
            self.shed(pending, buffers);
        }
        let listener = self.listener.lock().clone();
        if let Some(listener) = listener {
            listener.resume(&self.poller);
        }
    }

    /// Accepts the connections that wait in the backlog, then none. Closes idle connections, and waits until the others
    /// are closed.
    fn drain(&self, buffers: &mut WorkerBuffers) {
        let deadline = Instant::now() + self.limits.drain_timeout;
        while Instant::now() < deadline
            && let Some(connection) = self.accept(buffers)
        {
            self.hand_over(connection);
        }
        *self.listener.lock() = None;
        // A client that pipelines without end must not prolong the drain.
        let pipelining_timeout = self.limits.drain_timeout / 2;
        self.pipelining_deadline
            .get_or_init(|| Instant::now() + pipelining_timeout);
        while Instant::now() < deadline {
            // At the start of the loop, so that a worker that has just accepted a connection has added it to the slab.
            thread::sleep(DRAIN_TICK);
            let silent = self.limits.idle_timeout.saturating_sub(DRAIN_SILENCE);
            let latest_deadline = Instant::now() + silent;
            let is_silent = |connection: &Connection, deadline| {
                deadline <= latest_deadline && connection.is_between_requests()
            };
            for mut connection in self.connections.check_out_where(is_silent) {
                connection.end_idle();
                self.hand_over(connection);
            }
            self.sweep(buffers);
            if self.connections.len() == 0 && self.admission.is_empty() {
                return;
            }
        }
        for connection in self.connections.check_out_where(|_, _| true) {
            self.close(connection);
        }
    }

    /// Ends the waits of the workers.
    fn end_workers(&self) {
        self.poller.shut_down();
        self.slots.shut_down();
    }
}
