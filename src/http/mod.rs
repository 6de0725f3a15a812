//! HTTP/1.1 on threads: takes an address and a handler, and knows nothing of movies. Only rouille's types pass its
//! door.
//!
//! A request walks through the rooms in one direction:
//!
//! ```text
//! listener     a client -> a socket
//! poller       which socket is ready, to one of the workers
//! workers      table: the connection         queue: a permit for its handler
//! connection   as far as the socket allows
//! request, target, body                      bytes -> rouille::Request, or a refusal
//! response     rouille::Response, refusal -> bytes
//! ```
//!
//! No worker ever waits for a client: whatever is not there yet waits in the table until its deadline, and this room
//! sweeps the deadlines.
pub mod body;
pub mod refusal;
pub mod request;

mod class;
mod connection;
mod counters;
mod desk;
mod error_headers;
mod limits;
mod lines;
mod lingering;
mod listener;
mod memory;
mod pace;
mod poller;
mod queue;
mod response;
mod seats;
mod socket;
mod table;
mod target;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rouille::{Request, Response};

pub use self::class::{Class, ClassLimits};
use self::connection::{Connection, Expired};
pub use self::counters::Counters;
use self::desk::Desk;
use self::error_headers::ErrorHeaders;
pub use self::error_headers::{Header, HeaderLookup};
pub use self::limits::{Limits, files_for, raise_limit};
use self::listener::Listener;
use self::memory::MemoryBudget;
use self::poller::Poller;
use self::queue::AdmissionQueue;
use self::seats::Seats;
use self::table::Table;
use self::workers::Crew;

/// Handlers for each core that began a moment ago, at the most. Measured with 32 clients on two cores: four leave the
/// cores idle while handlers wait for the database, and sixteen cost a tenth of the requests.
const RECENT_STARTS_PER_CORE: usize = 8;

/// How often deadlines are looked at, and so how late one may be.
const TICK: Duration = Duration::from_millis(100);

/// The same while the server drains and somebody waits for its end.
const DRAINING_TICK: Duration = Duration::from_millis(10);

/// So long a connection is silent before a drain closes it: one that was just opened, or answered, has a request on its
/// way, which a proxy would not dare to send to another instance.
const DRAINING_GRACE: Duration = Duration::from_millis(500);

/// A server that listens and, once it runs, answers.
pub struct Server {
    crew: Arc<Crew>,
    stopper: Stopper,
    address: SocketAddr,
}

/// Stops a server, from any thread.
#[derive(Clone, Default)]
pub struct Stopper(Arc<(Mutex<bool>, Condvar)>);

impl Stopper {
    /// Begins the drain; once it has begun, nothing.
    pub fn stop(&self) {
        let (is_stopped, bell) = &*self.0;
        *is_stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        bell.notify_all();
    }

    /// Waits so long, or until the stop, and says whether it has come.
    fn wait(&self, duration: Duration) -> bool {
        let (is_stopped, bell) = &*self.0;
        let is_stopped = is_stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = bell.wait_timeout_while(is_stopped, duration, |is_stopped| !*is_stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Server {
    /// Listens on the address; clients wait until the server runs. `classify` says which limits a request's handler
    /// is admitted under, and may not block. The handler also takes the request's deadline: the instant at which the
    /// request was read whole, and [`Limits::request_timeout`] later.
    ///
    /// # Errors
    /// If the address is taken or not ours, or descriptors are missing.
    pub fn bind(
        address: SocketAddr,
        limits: Limits,
        classify: impl Fn(&Request) -> Class + Send + Sync + 'static,
        handler: impl Fn(&Request, Instant) -> Response + Send + Sync + 'static,
    ) -> io::Result<Server> {
        let listener = Listener::bind(address)?;
        let address = listener.local_address()?;
        let poller = Poller::new()?;
        listener.watch(&poller)?;
        let counters = Arc::new(Counters::default());
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let max_recent_starts = cores * RECENT_STARTS_PER_CORE;
        let crew = Crew {
            limits,
            poller,
            seats: Seats::new(cores),
            queue_watchers: AtomicUsize::new(0),
            listener: Mutex::new(Some(Arc::new(listener))),
            table: Table::default(),
            queue: AdmissionQueue::new(&limits, max_recent_starts, Arc::clone(&counters)),
            memory: Arc::new(MemoryBudget::new(&limits, Arc::clone(&counters))),
            classify: Box::new(classify),
            handler: Box::new(handler),
            error_headers: ErrorHeaders::default(),
            taken_until: OnceLock::new(),
            counters,
        };
        Ok(Server {
            crew: Arc::new(crew),
            stopper: Stopper::default(),
            address,
        })
    }

    /// Adds headers to the server's own error responses: those that `headers_of` gives for the request's headers, of which
    /// there are none if they were not read or are malformed. To be called before `run`.
    pub fn set_error_headers(
        &self,
        headers_of: impl Fn(&HeaderLookup) -> Vec<Header> + Send + Sync + 'static,
    ) {
        self.crew.error_headers.set(Box::new(headers_of));
    }

    /// Where it listens, with the port that the system chose for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// What stops it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.crew.counters)
    }

    /// Answers until it is stopped and drained, which takes [`Limits::drain_deadline`] at most: then handlers that
    /// still run are left alone, and their answers dropped.
    ///
    /// # Errors
    /// If the system has no threads left.
    pub fn run(self) -> io::Result<()> {
        seats::let_those_who_run_go_on();
        let mut workers = Vec::new();
        // One more than handlers that may run, so that one is always left to read, to refuse and to say that the
        // server lives.
        for _ in 0..=self.crew.limits.workers {
            let crew = Arc::clone(&self.crew);
            let worker = thread::Builder::new().name("worker".to_owned());
            match worker.spawn(move || crew.work()) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    self.crew.dismiss();
                    return Err(error);
                }
            }
        }
        let mut desk = self.crew.desk();
        while !self.stopper.wait(TICK) {
            self.crew.sweep(&mut desk);
        }
        self.crew.drain(&mut desk);
        self.crew.dismiss();
        self.crew.await_workers(workers);
        Ok(())
    }
}

impl Crew {
    /// Acts on every deadline that is past.
    fn sweep(&self, desk: &mut Desk) {
        let now = Instant::now();
        for mut connection in self.table.take_expired(now) {
            let expired = connection.expire(desk);
            self.go_on_expired(connection, expired, desk);
        }
        for pending in self.queue.shed(now) {
            self.shed(&pending, desk);
        }
        if let Some(listener) = self.listener() {
            listener.retry(&self.poller);
        }
    }

    fn go_on_expired(&self, connection: Box<Connection>, expired: Expired, desk: &mut Desk) {
        match expired {
            Expired::Open => self.settle(connection, true, desk),
            Expired::Readable => self.hand_over(connection),
            Expired::Closed => self.close(connection),
        }
    }

    /// Lets in who had come before, then nobody; closes what is idle, and waits for the rest.
    fn drain(&self, desk: &mut Desk) {
        let deadline = Instant::now() + self.limits.drain_deadline;
        while Instant::now() < deadline
            && let Some(connection) = self.welcome(desk)
        {
            self.hand_over(connection);
        }
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // A client that never ceases to send ahead may not hold up the end.
        let patience = self.limits.drain_deadline / 2;
        self.taken_until.get_or_init(|| Instant::now() + patience);
        while Instant::now() < deadline {
            // First, so that a worker that has just accepted somebody has a place for them by then.
            thread::sleep(DRAINING_TICK);
            let idle_until =
                Instant::now() + self.limits.idle_deadline.saturating_sub(DRAINING_GRACE);
            for mut connection in self.table.take_parked(Some(idle_until)) {
                let expired = connection.end_idle();
                self.go_on_expired(connection, expired, desk);
            }
            self.sweep(desk);
            if self.table.len() == 0 && self.queue.is_empty() {
                return;
            }
        }
        for connection in self.table.take_parked(None) {
            self.close(connection);
        }
    }

    /// Leaves a connection to the workers.
    fn hand_over(&self, connection: Box<Connection>) {
        let mut connection = Some(connection);
        while let Some(stirred) = connection {
            connection = self.park_behind_others(stirred);
        }
    }

    /// Ends the workers' waiting.
    fn dismiss(&self) {
        self.poller.end();
        self.seats.end();
    }

    /// Threads whose handlers hang are left behind.
    fn await_workers(&self, workers: Vec<JoinHandle<()>>) {
        if self.queue.is_empty() {
            for worker in workers {
                if worker.join().is_err() {
                    log::error!("a worker had panicked");
                }
            }
        }
    }
}
