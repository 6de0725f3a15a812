//! The workers: each waits for an event, goes with its connection as far as it can, and runs the handler of what it
//! read. Knows no framing.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rouille::{Request, Response};

use super::class::Class;
use super::connection::{Connection, Step};
use super::counters::{Counters, count};
use super::desk::Desk;
use super::error_headers::ErrorHeaders;
use super::limits::Limits;
use super::lines::PendingRequest;
use super::listener::{self, Listener};
use super::memory::{MemoryBudget, Reservation};
use super::pace::SLICE;
use super::poller::{Poller, Waited};
use super::queue::{Admission, AdmissionQueue, Turn};
use super::refusal::Refusal;
use super::response;
use super::seats::Seats;
use super::socket::Socket;
use super::table::{Key, Table};

/// How many clients past the limit have the time at once to read their refusal; one more is told and closed.
const REFUSED_AT_ONCE: usize = 32;

/// How many answers the server gives of itself on one connection before others have their turn.
const ANSWERED_AT_ONCE: usize = 32;

/// How long after a request's deadline the server answers in place of its handler. With the tick that looks at
/// deadlines, an answer is late by a third of a second at most.
const HANDLER_GRACE: Duration = Duration::from_millis(200);

/// Answers a request, by its deadline.
pub type Handler = dyn Fn(&Request, Instant) -> Response + Send + Sync;

/// Says which limits a request is admitted under.
pub type Classify = dyn Fn(&Request) -> Class + Send + Sync;

/// What a worker has for itself.
struct Worker {
    desk: Desk,
    /// Whether it has a seat at the poller.
    is_seated: bool,
}

/// What the workers share.
pub struct Crew {
    /// What is allowed.
    pub limits: Limits,
    /// What happened.
    pub counters: Arc<Counters>,
    /// Which sockets are ready.
    pub poller: Poller,
    /// Who waits for them.
    pub seats: Seats,
    /// Where clients come from; none once the server drains.
    pub listener: Mutex<Option<Arc<Listener>>>,
    /// The connections.
    pub table: Table,
    /// The requests that wait, and the permits.
    pub queue: AdmissionQueue,
    /// Workers at the poller that look at the queue every few milliseconds. Written by them alone.
    pub queue_watchers: AtomicUsize,
    /// The memory that all connections share.
    pub memory: Arc<MemoryBudget>,
    /// Says which limits a request is admitted under.
    pub classify: Box<Classify>,
    /// Answers requests.
    pub handler: Box<Handler>,
    /// The application's headers on error responses.
    pub error_headers: ErrorHeaders,
    /// Set once the server drains: how long requests sent ahead are still taken.
    pub taken_until: OnceLock<Instant>,
}

impl Crew {
    /// A worker's life, until the end of the server.
    pub fn work(&self) {
        let mut worker = Worker {
            desk: self.desk(),
            is_seated: false,
        };
        let mut events = Vec::with_capacity(1);
        loop {
            if !worker.is_seated {
                worker.is_seated = self.seats.try_take();
            }
            if !worker.is_seated {
                self.ensure_queue_is_watched();
                worker.is_seated = self.seats.take();
            }
            if !worker.is_seated {
                return;
            }
            let waited = if self.queue.has_startable() {
                if let Some(turn) = self.queue.next(Instant::now()) {
                    self.run(turn, &mut worker);
                    continue;
                }
                self.queue_watchers.fetch_add(1, Ordering::SeqCst);
                let waited = self.poller.wait(&mut events, Some(SLICE));
                self.queue_watchers.fetch_sub(1, Ordering::SeqCst);
                waited
            } else {
                self.poller.wait(&mut events, None)
            };
            let event = match waited {
                Ok(Waited::Event(event)) => event,
                Ok(Waited::Nothing) => continue,
                Ok(Waited::End) => return,
                Err(error) => {
                    log::error!("a worker cannot wait for events: {error}");
                    return;
                }
            };
            let connection = match event.name {
                listener::NAME => self.welcome(&mut worker.desk),
                name => self.table.take(Key::from(name), event.is_hung_up),
            };
            if let Some(connection) = connection {
                self.serve(connection, &mut worker);
            }
        }
    }

    /// The next client's connection, if there is a client and a place for it.
    pub fn welcome(&self, desk: &mut Desk) -> Option<Box<Connection>> {
        let listener = self.listener();
        let (stream, peer) = listener?.accept(&self.poller, &self.counters)?;
        let open = self.table.len();
        let is_crowded = open >= self.limits.connections;
        if is_crowded {
            count(&self.counters.refused);
            if open >= self.limits.connections + REFUSED_AT_ONCE {
                listener::turn_away(stream);
                return None;
            }
        }
        count(&self.counters.connections);
        let key = self.table.reserve();
        let mut connection = Box::new(Connection::new(
            key,
            Socket::new(stream),
            peer,
            &self.limits,
            Reservation::new(Arc::clone(&self.memory)),
        ));
        if let Err(error) = self.poller.watch(&connection.socket, key.into()) {
            log::error!("a connection is not watched, and closed: {error}");
            self.close(connection);
            return None;
        }
        if is_crowded && !connection.refuse(Refusal::Crowded, desk) {
            self.close(connection);
            return None;
        }
        Some(connection)
    }

    /// Goes on with a connection that is past its deadline, or with none of whose requests a handler is to begin.
    pub fn settle(&self, connection: Box<Connection>, is_open: bool, desk: &mut Desk) {
        if !is_open {
            self.close(connection);
        } else if let Some(pending) = self.drive(connection, desk) {
            self.shed(&pending, desk);
        }
    }

    /// Answers 503 in a handler's place.
    pub fn shed(&self, pending: &PendingRequest, desk: &mut Desk) {
        count(&self.counters.shed);
        if let Some(mut connection) = self.table.reclaim(pending.key) {
            let is_open = connection.refuse(Refusal::Busy, desk);
            self.settle(connection, is_open, desk);
        }
    }

    /// Ends a connection.
    pub fn close(&self, connection: Box<Connection>) {
        let key = connection.key;
        // The socket first: once its place is free, another may have it.
        drop(connection);
        self.table.release(key);
        self.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// What one more thread works with.
    pub fn desk(&self) -> Desk {
        let counters = Arc::clone(&self.counters);
        Desk::new(self.limits, counters, self.error_headers.clone())
    }

    /// Where clients come from.
    pub fn listener(&self) -> Option<Arc<Listener>> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        listener.clone()
    }

    /// Goes with a connection, and runs the handler of what it reads.
    fn serve(&self, connection: Box<Connection>, worker: &mut Worker) {
        let Some(pending) = self.drive(connection, &mut worker.desk) else {
            return;
        };
        match self.queue.admit(pending) {
            Admission::Run(turn) => self.run(turn, worker),
            Admission::Queued => {}
            Admission::Shed(pending) => self.shed(&pending, &mut worker.desk),
        }
    }

    /// Runs a handler; and then the next one, while there is a turn.
    fn run(&self, turn: Turn, worker: &mut Worker) {
        if worker.is_seated {
            worker.is_seated = false;
            let is_needed = self.queue.has_startable();
            if !self.seats.leave(is_needed) && is_needed {
                self.ensure_queue_is_watched();
            }
        }
        let mut turn = Some(turn);
        while let Some((pending, permit)) = turn {
            let connection = self.handle(pending, worker);
            let next = connection.and_then(|connection| self.drive(connection, &mut worker.desk));
            turn = match next {
                Some(pending) => {
                    let had_startable = self.queue.has_startable();
                    let turn = self.queue.exchange(permit, pending);
                    if turn.is_some() && !had_startable {
                        self.ensure_queue_is_watched();
                    }
                    turn
                }
                None => self.queue.finish(permit, Instant::now()),
            };
        }
    }

    /// Has a worker at the poller look at the queue, if a request waits there for time to pass and no worker looks.
    /// Whoever is about to block, and leaves such a request behind, calls it.
    fn ensure_queue_is_watched(&self) {
        if self.queue.has_startable() && self.queue_watchers.load(Ordering::SeqCst) == 0 {
            self.poller.wake_one();
        }
    }

    /// Reads on until the connection waits or ends, or a handler is to begin.
    fn drive(&self, mut connection: Box<Connection>, desk: &mut Desk) -> Option<PendingRequest> {
        let mut answered = 0;
        loop {
            match connection.advance(desk) {
                Step::Answer(request) => {
                    let received = Instant::now();
                    let deadline = received + self.limits.request_timeout;
                    let class = self.guard(&request, || (self.classify)(&request));
                    let response = match class {
                        Ok(Class::Immediate) => self.respond(&request, deadline),
                        Ok(class) => {
                            let key = connection.key;
                            let was_sent_ahead = connection.sends_ahead();
                            self.table.hold(connection, deadline + HANDLER_GRACE);
                            return Some(PendingRequest {
                                key,
                                request,
                                received,
                                class,
                                was_sent_ahead,
                            });
                        }
                        Err(response) => response,
                    };
                    let taken_until = self.taken_until.get().copied();
                    if !connection.answer(response, desk, taken_until) {
                        self.close(connection);
                        return None;
                    }
                    answered += 1;
                }
                Step::Wait => connection = self.park(connection)?,
                Step::Yield => connection = self.park_behind_others(connection)?,
                Step::Close => {
                    self.close(connection);
                    return None;
                }
            }
            if answered == ANSWERED_AT_ONCE {
                answered = 0;
                connection = self.park_behind_others(connection)?;
            }
        }
    }

    /// Runs the handler, and sends its answer. The connection, if it goes on.
    fn handle(&self, pending: PendingRequest, worker: &mut Worker) -> Option<Box<Connection>> {
        let deadline = pending.received + self.limits.request_timeout;
        if Instant::now() >= deadline {
            self.shed(&pending, &mut worker.desk);
            return None;
        }
        let response = self.respond(&pending.request, deadline);
        // Well past the deadline it is gone, and the answer is dropped.
        let mut connection = self.table.reclaim(pending.key)?;
        let taken_until = self.taken_until.get().copied();
        if connection.answer(response, &mut worker.desk, taken_until) {
            return Some(connection);
        }
        self.close(connection);
        None
    }

    fn respond(&self, request: &Request, deadline: Instant) -> Response {
        let response = self.guard(request, || (self.handler)(request, deadline));
        response.unwrap_or_else(|response| response)
    }

    /// Runs code of the application; if it panics, logs that, and gives the response 500.
    fn guard<T>(&self, request: &Request, run: impl FnOnce() -> T) -> Result<T, Response> {
        catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
            count(&self.counters.panics);
            // A query may hold a secret.
            let path = request.raw_url().split('?').next().unwrap_or_default();
            log::error!("a handler panicked: {} {path:?}", request.method());
            let mut response = response::fault();
            let headers = self.error_headers.of(&|name| request.header(name));
            response.headers.extend(headers);
            response
        })
    }

    /// None if the connection waits; itself if something happened on it in the meantime.
    fn park(&self, mut connection: Box<Connection>) -> Option<Box<Connection>> {
        let is_sending = connection.is_sending();
        if connection.watches_writing != is_sending {
            connection.watches_writing = is_sending;
            let (socket, name) = (&connection.socket, connection.key.into());
            let watched = match is_sending {
                true => self.poller.watch_writing(socket, name),
                false => self.poller.watch_reading(socket, name),
            };
            if let Err(error) = watched {
                log::error!("a connection is not watched, and closed: {error}");
                self.close(connection);
                return None;
            }
        }
        self.table.park(connection)
    }

    /// Lets others have their turn before the connection goes on; as [`Crew::park`].
    pub fn park_behind_others(&self, mut connection: Box<Connection>) -> Option<Box<Connection>> {
        connection.watches_writing = false;
        let (socket, name) = (&connection.socket, connection.key.into());
        if let Err(error) = self.poller.tell_at_once(socket, name) {
            log::error!("a connection is not watched, and closed: {error}");
            self.close(connection);
            return None;
        }
        self.table.park(connection)
    }
}
