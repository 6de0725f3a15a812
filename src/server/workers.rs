//! The workers: each waits for an event, goes with its connection as far as it can, and runs the handler of what it
//! read. Knows no framing.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use rouille::{Request, Response};

use super::Liveness;
use super::connection::{Connection, Step};
use super::counters::{Counters, count};
use super::desk::Desk;
use super::limits::Limits;
use super::listener::{self, Listener};
use super::pace::SLICE;
use super::poller::{Poller, Waited};
use super::queue::{Admission, Queue, Ready, Turn};
use super::refusal::Refusal;
use super::response;
use super::seats::Seats;
use super::socket::Socket;
use super::table::{Key, Table};

/// How many clients past the limit have the time at once to read their refusal; one more is told and closed.
const REFUSED_AT_ONCE: usize = 32;

/// How many answers the server gives of itself on one connection before others have their turn.
const ANSWERED_AT_ONCE: usize = 32;

/// What answers requests.
pub type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// What tells the costly ones.
pub type Judge = dyn Fn(&Request) -> bool + Send + Sync;

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
    pub queue: Queue,
    /// What the server answers itself.
    pub liveness: Option<Liveness>,
    /// Whether a request's handler is costly.
    pub is_costly: Box<Judge>,
    /// What answers all else.
    pub handler: Box<Handler>,
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
                worker.is_seated = self.seats.take();
            }
            if !worker.is_seated {
                return;
            }
            // Requests that wait for handlers to end, or to prove slow, are looked after by whoever waits for events.
            let mut patience = None;
            if self.queue.is_crowded() {
                if let Some(turn) = self.queue.next(Instant::now()) {
                    self.run(turn, &mut worker);
                    continue;
                }
                patience = Some(SLICE);
            }
            let event = match self.poller.wait(&mut events, patience) {
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
        } else if let Some(ready) = self.drive(connection, desk) {
            self.shed(&ready, desk);
        }
    }

    /// Answers 503 in a handler's place.
    pub fn shed(&self, ready: &Ready, desk: &mut Desk) {
        count(&self.counters.shed);
        if let Some(mut connection) = self.table.reclaim(ready.key) {
            let is_open = connection.refuse(Refusal::Busy, desk);
            self.settle(connection, is_open, desk);
        }
    }

    /// Ends a connection.
    pub fn close(&self, mut connection: Box<Connection>) {
        let key = connection.key;
        connection.release(&self.counters);
        // The socket first: once its place is free, another may have it.
        drop(connection);
        self.table.release(key);
        self.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// What one more thread works with.
    pub fn desk(&self) -> Desk {
        Desk::new(self.limits, Arc::clone(&self.counters))
    }

    /// Where clients come from.
    pub fn listener(&self) -> Option<Arc<Listener>> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        listener.clone()
    }

    /// Goes with a connection, and runs the handler of what it reads.
    fn serve(&self, connection: Box<Connection>, worker: &mut Worker) {
        let Some(ready) = self.drive(connection, &mut worker.desk) else {
            return;
        };
        match self.queue.admit(ready) {
            Admission::Run(turn) => self.run(turn, worker),
            Admission::Queued => {}
            Admission::Shed(ready) => self.shed(&ready, &mut worker.desk),
        }
    }

    /// Runs a handler; and then the next one, while there is a turn.
    fn run(&self, turn: Turn, worker: &mut Worker) {
        if worker.is_seated {
            self.seats.leave(self.queue.is_crowded());
            worker.is_seated = false;
        }
        let mut turn = Some(turn);
        while let Some((ready, permit)) = turn {
            let connection = self.handle(ready, worker);
            let next = connection.and_then(|connection| self.drive(connection, &mut worker.desk));
            turn = match next {
                Some(ready) => self.queue.exchange(permit, ready),
                None => self.queue.finish(permit, Instant::now()),
            };
        }
    }

    /// Reads on until the connection waits or ends, or a handler is to begin.
    fn drive(&self, mut connection: Box<Connection>, desk: &mut Desk) -> Option<Ready> {
        let mut answered = 0;
        loop {
            match connection.advance(desk) {
                Step::Answer(request) => match self.answer_liveness(&request) {
                    Some(response) => {
                        let taken_until = self.taken_until.get().copied();
                        if !connection.answer(response, desk, taken_until) {
                            self.close(connection);
                            return None;
                        }
                        answered += 1;
                    }
                    None => {
                        let key = connection.key;
                        self.table.hold(connection);
                        return Some(Ready {
                            key,
                            since: Instant::now(),
                            is_costly: (self.is_costly)(&request),
                            request,
                        });
                    }
                },
                Step::Wait => connection = self.park(connection)?,
                Step::Close => {
                    self.close(connection);
                    return None;
                }
            }
            if answered == ANSWERED_AT_ONCE {
                answered = 0;
                // Its socket takes more, so that an event comes at once, behind those of others.
                connection = self.park_for_writing(connection)?;
            }
        }
    }

    /// Runs the handler, and sends its answer. The connection, if it goes on.
    fn handle(&self, ready: Ready, worker: &mut Worker) -> Option<Box<Connection>> {
        let deadline = Instant::now() + self.limits.handler_deadline;
        if !self.table.begin(ready.key, deadline) {
            return None;
        }
        let request = &ready.request;
        let response = catch_unwind(AssertUnwindSafe(|| (self.handler)(request)));
        let response = response.unwrap_or_else(|_| {
            count(&self.counters.panics);
            // A query may hold a secret.
            let path = request.raw_url().split('?').next().unwrap_or_default();
            log::error!("a handler panicked: {} {path:?}", request.method());
            response::fault()
        });
        // Past the deadline it is gone, and the answer is dropped.
        let mut connection = self.table.reclaim(ready.key)?;
        let taken_until = self.taken_until.get().copied();
        if connection.answer(response, &mut worker.desk, taken_until) {
            return Some(connection);
        }
        self.close(connection);
        None
    }

    /// None if the connection waits; itself if something happened on it in the meantime.
    fn park(&self, connection: Box<Connection>) -> Option<Box<Connection>> {
        if connection.is_sending() {
            return self.park_for_writing(connection);
        }
        self.table.park(connection)
    }

    fn park_for_writing(&self, connection: Box<Connection>) -> Option<Box<Connection>> {
        if let Err(error) = self
            .poller
            .watch_writing(&connection.socket, connection.key.into())
        {
            log::error!("a connection is not watched, and closed: {error}");
            self.close(connection);
            return None;
        }
        self.table.park(connection)
    }

    /// The server's own answer to who asks whether it lives.
    fn answer_liveness(&self, request: &Request) -> Option<Response> {
        let liveness = self.liveness.as_ref()?;
        let path = request.raw_url().split('?').next();
        let is_asked = path == Some(liveness.path) && matches!(request.method(), "GET" | "HEAD");
        is_asked.then(liveness.answer)
    }
}
