//! The workers: each waits for an event, advances its connection, and runs the handlers of the requests that are admitted.
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use rouille::{Request, Response};
use rustix::event::epoll::{Event, EventFlags};

use super::admission::{self, Admission, AdmissionQueue, Admitted};
use super::connection::{Connection, Progress, WorkerBuffers};
use super::limits::{Class, Limits};
use super::listener::{self, Listener};
use super::memory::MemoryBudget;
use super::poller::{LISTENER_TOKEN, Poller, PollerSlots, READABLE, REQUEUED, WRITABLE, Waited};
use super::response::{ErrorRenderer, HttpError};
use super::slab::ConnectionSlab;
use super::stats::{Stats, increment};

/// Connections beyond the limit that are given time to read their 503. Further ones are closed right after it.
const MAX_REJECTED_CONNECTIONS: usize = 32;

/// Immediate responses on one connection before other connections have their turn.
const MAX_IMMEDIATE_RESPONSES: usize = 32;

/// Handles a request. Must return by the deadline.
pub type Handler = dyn Fn(&Request, Instant) -> Response + Send + Sync;

/// Decides the class of a request. Must not block.
pub type Classify = dyn Fn(&Request) -> Class + Send + Sync;

type PendingRequest = admission::PendingRequest<Box<Connection>>;

/// What the workers and the thread of [`Server::run`](super::Server::run) share.
///
/// No lock of the server is taken under another one, and no code of the application runs under one.
pub struct Shared {
    pub limits: Limits,
    pub stats: Arc<Stats>,
    pub poller: Poller,
    pub slots: PollerSlots,
    /// `None` once the server drains.
    pub listener: Mutex<Option<Arc<Listener>>>,
    pub connections: ConnectionSlab<Connection>,
    pub admission: AdmissionQueue<Box<Connection>>,
    pub memory: Arc<MemoryBudget>,
    pub classify: Box<Classify>,
    pub handler: Box<Handler>,
    pub errors: ErrorRenderer,
    /// Set once the server drains: until then, connections are kept open for pipelined requests.
    pub pipelining_deadline: OnceLock<Instant>,
}

/// The state of one worker thread.
struct Worker {
    buffers: WorkerBuffers,
    /// Whether the thread has a slot at the poller.
    is_leader: bool,
    /// One event at a time is taken from the poller.
    events: Vec<Event>,
}

impl Shared {
    /// Runs one worker until the server ends.
    pub fn work(&self) {
        let mut worker = Worker {
            buffers: self.make_buffers(),
            is_leader: false,
            events: Vec::with_capacity(1),
        };
        while self.ensure_leader(&mut worker) {
            let (token, event) = match self.poller.wait(&mut worker.events) {
                Ok(Waited::Ready(token, event)) => (token, event),
                Ok(Waited::Woken) => {
                    if let Some(admitted) = self.wake_for_more(self.admission.try_start()) {
                        self.run(admitted, &mut worker);
                    }
                    continue;
                }
                Ok(Waited::Shutdown) => return,
                Err(error) => {
                    log::error!("a worker cannot wait for events: {error}");
                    return;
                }
            };
            let connection = match token {
                LISTENER_TOKEN => self.accept(&mut worker.buffers),
                token => {
                    let mut connection = self.connections.check_out(token, event);
                    if let Some(connection) = &mut connection {
                        connection.note_event(event);
                    }
                    connection
                }
            };
            let buffers = &mut worker.buffers;
            let Some(pending) = connection.and_then(|connection| self.advance(connection, buffers))
            else {
                continue;
            };
            match self.admission.admit(pending) {
                Admission::Run(admitted) => self.run(admitted, &mut worker),
                Admission::Queued => {}
                Admission::Shed(pending) => self.shed(pending, buffers),
            }
        }
    }

    /// Accepts the next connection, if there is one and the limit allows it.
    pub fn accept(&self, buffers: &mut WorkerBuffers) -> Option<Box<Connection>> {
        let listener = self.listener.lock().clone();
        let (stream, peer) = listener?.accept(&self.poller, &self.stats, &self.errors)?;
        let open = self.connections.len();
        let is_beyond_limit = open >= self.limits.max_connections;
        if is_beyond_limit {
            increment(&self.stats.rejected_connections);
            if open >= self.limits.max_connections + MAX_REJECTED_CONNECTIONS {
                listener::reject(stream, &self.errors);
                return None;
            }
        }
        increment(&self.stats.connections);
        let token = self.connections.insert();
        let budget = Arc::clone(&self.memory);
        let connection = Connection::new(token, stream, peer, &self.limits, budget);
        let mut connection = Box::new(connection);
        if let Err(error) = self.poller.register(&connection.socket.0, token, READABLE) {
            return self.close_unwatched(connection, &error);
        }
        if is_beyond_limit && !connection.reject(HttpError::TooManyConnections, buffers) {
            self.close(connection);
            return None;
        }
        Some(connection)
    }

    /// Makes the poller deliver a connection to a worker.
    pub fn hand_over(&self, connection: Box<Connection>) {
        let mut connection = Some(connection);
        while let Some(pending) = connection {
            connection = self.requeue(pending);
        }
    }

    /// Answers a request 503 instead of running its handler.
    pub fn shed(&self, pending: PendingRequest, buffers: &mut WorkerBuffers) {
        increment(&self.stats.shed);
        let mut connection = pending.connection;
        if connection.reject_request(HttpError::Overloaded, &pending.request, buffers) {
            // A connection that lingers has no further request.
            self.advance(connection, buffers);
        } else {
            self.close(connection);
        }
    }

    /// Closes a connection that the caller owns.
    pub fn close(&self, connection: Box<Connection>) {
        let token = connection.token;
        // The socket first: `len` of the slab must not be less than the number of open sockets.
        drop(connection);
        self.connections.remove(token);
        self.stats.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Creates the buffers of one thread.
    pub fn make_buffers(&self) -> WorkerBuffers {
        let stats = Arc::clone(&self.stats);
        WorkerBuffers::new(self.limits, stats, self.errors.clone())
    }

    /// Makes the worker a leader, waiting for a slot if needed. Returns false once the server ends.
    fn ensure_leader(&self, worker: &mut Worker) -> bool {
        worker.is_leader = worker.is_leader || self.slots.acquire();
        worker.is_leader
    }

    /// Runs a handler, and then those that are admitted next.
    fn run(&self, admitted: Admitted<Box<Connection>>, worker: &mut Worker) {
        if worker.is_leader {
            worker.is_leader = false;
            self.slots.release();
        }
        let mut next = Some(admitted);
        while let Some((pending, permit)) = next {
            let connection = self.handle(pending, worker);
            let buffers = &mut worker.buffers;
            let following = connection.and_then(|connection| self.advance(connection, buffers));
            next = self.wake_for_more(self.admission.release(permit, following));
        }
    }

    /// Wakes a worker at the poller if one more request may start than the one that is returned.
    fn wake_for_more(
        &self,
        (admitted, may_start_more): (Option<Admitted<Box<Connection>>>, bool),
    ) -> Option<Admitted<Box<Connection>>> {
        if may_start_more {
            self.poller.wake_one();
        }
        admitted
    }

    /// Advances a connection until it is idle or closed (`None`), or yields a request that needs a permit.
    fn advance(
        &self,
        mut connection: Box<Connection>,
        buffers: &mut WorkerBuffers,
    ) -> Option<PendingRequest> {
        let mut responses = 0;
        loop {
            match connection.advance(buffers) {
                Progress::Request(request) => {
                    let received = Instant::now();
                    let class = self.catch_panic(&request, || (self.classify)(&request));
                    let response = match class {
                        Ok(Class::Immediate) => {
                            self.call_handler(&request, received + self.limits.request_timeout)
                        }
                        Ok(class) => {
                            return Some(PendingRequest {
                                is_pipelined: connection.is_pipelining,
                                connection,
                                request,
                                received,
                                class,
                            });
                        }
                        Err(response) => response,
                    };
                    connection = self.respond(connection, response, buffers)?;
                    responses += 1;
                }
                Progress::WaitForSocket => connection = self.check_in(connection)?,
                Progress::Yield => connection = self.requeue(connection)?,
                Progress::Close => {
                    self.close(connection);
                    return None;
                }
            }
            if responses == MAX_IMMEDIATE_RESPONSES {
                responses = 0;
                connection = self.requeue(connection)?;
            }
        }
    }

    /// Runs the handler of an admitted request, and sends its response. Returns the connection if it stays open.
    fn handle(&self, pending: PendingRequest, worker: &mut Worker) -> Option<Box<Connection>> {
        let deadline = pending.received + self.limits.request_timeout;
        if Instant::now() >= deadline {
            self.shed(pending, &mut worker.buffers);
            return None;
        }
        let response = self.call_handler(&pending.request, deadline);
        self.respond(pending.connection, response, &mut worker.buffers)
    }

    fn call_handler(&self, request: &Request, deadline: Instant) -> Response {
        let response = self.catch_panic(request, || (self.handler)(request, deadline));
        if Instant::now() > deadline {
            increment(&self.stats.handler_timeouts);
        }
        response.unwrap_or_else(|response| response)
    }

    fn respond(
        &self,
        mut connection: Box<Connection>,
        response: Response,
        buffers: &mut WorkerBuffers,
    ) -> Option<Box<Connection>> {
        let pipelining_deadline = self.pipelining_deadline.get().copied();
        if connection.respond(response, buffers, pipelining_deadline) {
            return Some(connection);
        }
        self.close(connection);
        None
    }

    /// Runs code of the application. If it panics, logs that and returns a response with status 500.
    fn catch_panic<T>(&self, request: &Request, run: impl FnOnce() -> T) -> Result<T, Response> {
        catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
            increment(&self.stats.handler_panics);
            // The query may contain a secret.
            let path = request.raw_url().split('?').next().unwrap_or_default();
            log::error!("a handler panicked: {} {path:?}", request.method());
            let lookup = |name: &str| request.header(name);
            self.errors.render(HttpError::Internal, &lookup)
        })
    }

    /// Checks a connection into the slab, to wait for its socket. Returns it if an event came in the meantime, `None` if
    /// it is idle or closed.
    fn check_in(&self, mut connection: Box<Connection>) -> Option<Box<Connection>> {
        let is_writing = connection.is_writing();
        let is_changed = connection.watches_writable != is_writing;
        connection.watches_writable = is_writing;
        let interest = if is_writing { WRITABLE } else { READABLE };
        self.check_in_as(connection, is_changed.then_some(interest))
    }

    /// As [`Shared::check_in`], with an event for the connection at once, behind those of other connections.
    fn requeue(&self, mut connection: Box<Connection>) -> Option<Box<Connection>> {
        connection.watches_writable = false;
        self.check_in_as(connection, Some(REQUEUED))
    }

    fn check_in_as(
        &self,
        connection: Box<Connection>,
        changed_interest: Option<EventFlags>,
    ) -> Option<Box<Connection>> {
        let (token, deadline) = (connection.token, connection.deadline);
        if let Some(interest) = changed_interest
            && let Err(error) = self.poller.modify(&connection.socket.0, token, interest)
        {
            return self.close_unwatched(connection, &error);
        }
        let checked_in = self.connections.check_in(token, connection, deadline);
        let (mut connection, event) = checked_in.err()?;
        connection.note_earlier_event(event);
        Some(connection)
    }

    /// Returns `None`.
    fn close_unwatched(
        &self,
        connection: Box<Connection>,
        error: &io::Error,
    ) -> Option<Box<Connection>> {
        log::error!("closed a connection that cannot be watched: {error}");
        self.close(connection);
        None
    }
}

/// Asks the kernel not to preempt a running thread for one that was woken, on this thread and those that it starts
/// (SCHED_BATCH, sched(7)). Otherwise a handler that wakes many others, such as one that answered a batch for them, loses
/// its core to each of them. Measured with `./run.sh bench --peer` against a build without this call: read 1.15, first
/// page 1.09, search 1.03, create 1.00.
#[allow(unsafe_code)] // no safe crate has this call; it reads its argument and changes only this thread's policy
pub fn use_batch_scheduling() {
    let priority = libc::sched_param { sched_priority: 0 };
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const priority) } != 0 {
        let error = io::Error::last_os_error();
        log::debug!("the workers keep the default scheduling policy: {error}");
    }
}
