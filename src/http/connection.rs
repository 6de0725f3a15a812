//! One connection: its socket and its state machine (drawn in the module comment of `http`). Nothing here waits: if the
//! socket has no bytes or takes none, the connection says so, and its owner checks it into the slab.
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rouille::{Request, Response};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv};

use super::body::BodyDecoder;
use super::head::{self, Head, parse_head};
use super::limits::Limits;
use super::memory::{MemoryBudget, Reservation};
use super::poller::SocketEvent;
use super::response::{ErrorRenderer, HeaderLookup, HttpError, ResponseContext, ResponseWriter};
use super::slab::Token;
use super::stats::{Stats, increment};

/// How long a request may take to be read that arrives as the idle timeout of its connection ends.
const LAST_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that are read at once in addition to a head of maximum size. A client can pipeline that many.
const READ_AHEAD_BYTES: usize = 4 * 1024;

/// The buffers of one thread, lent to one connection at a time: an idle connection has none of its own.
pub struct WorkerBuffers {
    limits: Limits,
    stats: Arc<Stats>,
    /// Bytes read from the socket. Its capacity is fixed, for a head of maximum size and some more.
    input: Vec<u8>,
    writer: ResponseWriter,
}

impl WorkerBuffers {
    pub fn new(limits: Limits, stats: Arc<Stats>, errors: ErrorRenderer) -> WorkerBuffers {
        WorkerBuffers {
            limits,
            stats,
            input: Vec::with_capacity(limits.max_head_bytes + READ_AHEAD_BYTES),
            writer: ResponseWriter::new(errors),
        }
    }
}

/// A client's connection. One thread at a time has it, so it needs no lock.
pub struct Connection {
    /// Its entry in the slab and its registration at the poller.
    pub token: Token,
    /// When its state times out. Checked by the slab while the connection is idle there.
    pub deadline: Instant,
    pub socket: Socket,
    /// Whether the poller watches for the socket becoming writable instead of readable.
    pub watches_writable: bool,
    peer: SocketAddr,
    state: State,
    /// Bytes that were read but not parsed: part of a head, or pipelined requests.
    input: Vec<u8>,
    /// The first bytes of `input` for which [`parse_head`] needs more.
    parsed_bytes: usize,
    /// Holds the bytes of the request's body, or of the rest of the response.
    memory: Reservation,
    /// The last read took everything that was in the socket, and no event has come since.
    is_drained: bool,
    /// The client sends nothing more. What it sent before is still answered.
    is_hung_up: bool,
    /// Bytes of the request that was read last came before the last response was sent, or before the connection was idle
    /// after it (RFC 9112 9.3.2).
    pub is_pipelining: bool,
    /// Cleared by each response.
    has_read_since_response: bool,
}

enum State {
    /// Within a head if `has_begun`, else between requests.
    ReadingHead {
        has_begun: bool,
    },
    ReadingBody {
        head: Head,
        body: BodyDecoder,
    },
    /// The request waits for its handler, or the handler runs.
    InHandler(ResponseContext),
    /// The socket does not take the rest of a response for now.
    Writing {
        rest: Vec<u8>,
        written: usize,
        next: Next,
    },
    /// Nothing more is sent, and what the client still sends is dropped.
    Lingering(Lingering),
}

/// What follows a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    ReadRequest,
    Close,
    /// Close later, since the client may still be sending (see [`Lingering`]).
    Linger,
}

/// What a connection needs next.
pub enum Progress {
    /// A handler for this request.
    Request(Request),
    /// An event of its socket, until its deadline.
    WaitForSocket,
    /// To be advanced again after other connections.
    Yield,
    /// To be closed.
    Close,
}

impl Connection {
    /// Creates the state of a connection that was just accepted, with a non-blocking socket.
    pub fn new(
        token: Token,
        socket: TcpStream,
        peer: SocketAddr,
        limits: &Limits,
        budget: Arc<MemoryBudget>,
    ) -> Connection {
        Connection {
            token,
            deadline: Instant::now() + limits.idle_timeout,
            socket: Socket(socket),
            watches_writable: false,
            peer,
            state: State::ReadingHead { has_begun: false },
            input: Vec::new(),
            parsed_bytes: 0,
            memory: Reservation::new(budget),
            is_drained: false,
            is_hung_up: false,
            is_pipelining: false,
            has_read_since_response: true,
        }
    }

    /// Must be called for each event of the socket, before [`Connection::advance`].
    pub fn note_event(&mut self, event: SocketEvent) {
        self.is_drained = false;
        self.is_hung_up |= event.is_hung_up;
    }

    /// Must be called instead of [`Connection::note_event`] if the event came while the connection was checked out.
    pub fn note_earlier_event(&mut self, event: SocketEvent) {
        self.note_event(event);
        self.is_pipelining |= !self.has_read_since_response;
    }

    /// Whether the connection waits for its socket to become writable.
    pub fn is_writing(&self) -> bool {
        matches!(self.state, State::Writing { .. })
    }

    /// Whether the connection is between requests, and its socket has nothing to read.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, State::ReadingHead { has_begun: false }) && !self.socket.has_input()
    }

    /// Reads and writes as far as the socket allows.
    pub fn advance(&mut self, buffers: &mut WorkerBuffers) -> Progress {
        loop {
            match &mut self.state {
                State::ReadingHead { .. } | State::ReadingBody { .. } => {
                    if let Some(progress) = self.receive(buffers) {
                        return progress;
                    }
                }
                State::InHandler(_) => return Progress::WaitForSocket,
                State::Writing {
                    rest,
                    written,
                    next,
                } => {
                    let unwritten = rest.get(*written..).unwrap_or_default();
                    let Ok(more) = self.socket.write(unwritten) else {
                        return Progress::Close;
                    };
                    if more < unwritten.len() {
                        *written += more;
                        return Progress::WaitForSocket;
                    }
                    let next = *next;
                    self.memory.release();
                    // The poller did not report what came in the meantime.
                    self.is_drained = false;
                    if !self.begin_next(next, &buffers.limits) {
                        return Progress::Close;
                    }
                }
                State::Lingering(lingering) => {
                    let progress = lingering.discard_input(&self.socket, &mut buffers.input);
                    self.deadline = lingering.deadline();
                    return progress;
                }
            }
        }
    }

    /// Sends a handler's response. Returns false if the connection must be closed. During shutdown, the response to the
    /// last request that has arrived closes the connection, and every response does after `pipelining_deadline`.
    pub fn respond(
        &mut self,
        response: Response,
        buffers: &mut WorkerBuffers,
        pipelining_deadline: Option<Instant>,
    ) -> bool {
        let State::InHandler(context) = self.state else {
            return false;
        };
        self.memory.release();
        self.is_pipelining = !self.input.is_empty() || !self.is_drained;
        self.has_read_since_response = false;
        let has_input = || !self.input.is_empty() || self.socket.has_input();
        let is_last =
            pipelining_deadline.is_some_and(|until| Instant::now() > until || !has_input());
        let closes = is_last || !context.keep_alive;
        let next = match closes {
            false => Next::ReadRequest,
            true if context.keep_alive || has_input() => Next::Linger,
            true => Next::Close,
        };
        let writer = &mut buffers.writer;
        if let Err(error) = writer.write(response, context, closes) {
            log::error!("{error:#}");
            let response = writer.errors.render(HttpError::Internal, &|_| None);
            if writer.write(response, context, closes).is_err() {
                return false;
            }
        }
        self.send(next, buffers)
    }

    /// Responds with an error to a request that was not handled, then lingers. Returns false if the connection must be
    /// closed.
    pub fn reject_request(
        &mut self,
        error: HttpError,
        request: &Request,
        buffers: &mut WorkerBuffers,
    ) -> bool {
        let is_head = request.method() == "HEAD";
        self.send_error(error, &|name| request.header(name), is_head, buffers)
    }

    /// As [`Connection::reject_request`], before a request is complete.
    pub fn reject(&mut self, error: HttpError, buffers: &mut WorkerBuffers) -> bool {
        let state = State::ReadingHead { has_begun: false };
        let head = match std::mem::replace(&mut self.state, state) {
            State::ReadingBody { head, .. } => Some(head),
            _ => None,
        };
        let is_head = match &head {
            Some(head) => head.method == "HEAD",
            None => head::begins_with_head_method(&self.input),
        };
        let lookup = |name: &str| head.as_ref().and_then(|head| head.header(name));
        self.send_error(error, &lookup, is_head, buffers)
    }

    /// Acts on the deadline. The time that a connection spends in the admission queue or in a handler is limited there.
    /// Returns false if the connection must be closed.
    pub fn expire(&mut self, buffers: &mut WorkerBuffers) -> bool {
        let timeouts = match &self.state {
            State::ReadingHead { has_begun: false } => {
                self.end_idle();
                return true;
            }
            State::InHandler(_) | State::Lingering(_) => return false,
            State::Writing { .. } => {
                increment(&buffers.stats.write_timeouts);
                return false;
            }
            State::ReadingHead { has_begun: true } => &buffers.stats.head_timeouts,
            State::ReadingBody { .. } => &buffers.stats.body_timeouts,
        };
        increment(timeouts);
        increment(&buffers.stats.rejected_requests);
        self.reject(HttpError::RequestTimeout, buffers)
    }

    /// Ends an idle connection, unless unread bytes have come, which a worker has to read. The FIN is sent before the
    /// socket is closed: the client learns of the end, and a request that crosses the FIN does not cause a reset.
    pub fn end_idle(&mut self) {
        if self.socket.has_input() {
            self.is_drained = false;
            self.deadline = Instant::now() + LAST_READ_TIMEOUT;
        } else {
            self.linger(LINGER_AFTER_IDLE_TIMEOUT);
        }
    }

    /// Reads and parses until a request is complete or the socket has no more bytes. Returns `None` after it sent an error
    /// response.
    fn receive(&mut self, buffers: &mut WorkerBuffers) -> Option<Progress> {
        let mut parsed_bytes = std::mem::take(&mut self.parsed_bytes);
        buffers.input.clear();
        buffers.input.extend(std::mem::take(&mut self.input));
        loop {
            match self.parse(&buffers.input, parsed_bytes, &buffers.limits) {
                Ok((taken, Some(request))) => {
                    increment(&buffers.stats.requests);
                    self.input = buffers.input.split_off(taken);
                    return Some(Progress::Request(request));
                }
                Ok((taken, None)) => {
                    buffers.input.drain(..taken);
                    parsed_bytes = buffers.input.len();
                }
                Err(error) => {
                    increment(match error {
                        HttpError::Overloaded => &buffers.stats.shed,
                        _ => &buffers.stats.rejected_requests,
                    });
                    self.input.clone_from(&buffers.input);
                    let is_open = self.reject(error, buffers);
                    return (!is_open).then_some(Progress::Close);
                }
            }
            if self.is_drained {
                self.input.clone_from(&buffers.input);
                self.parsed_bytes = parsed_bytes;
                return Some(Progress::WaitForSocket);
            }
            let free_bytes = buffers.input.capacity() - buffers.input.len();
            self.has_read_since_response = true;
            match self.socket.read(&mut buffers.input) {
                Some(0) => return Some(Progress::Close),
                // Fewer bytes than fit are all that was there. The end of the stream needs a read of its own.
                Some(read) => self.is_drained = read < free_bytes && !self.is_hung_up,
                None => {
                    self.is_drained = true;
                    if let State::ReadingHead { has_begun: false } = self.state {
                        self.is_pipelining = false;
                    }
                }
            }
        }
    }

    /// Returns how many bytes were taken, and the request that they complete. `parsed_bytes` were parsed before.
    fn parse(
        &mut self,
        bytes: &[u8],
        parsed_bytes: usize,
        limits: &Limits,
    ) -> Result<(usize, Option<Request>), HttpError> {
        let mut head_bytes = 0;
        if let State::ReadingHead { has_begun } = &mut self.state {
            let parsed = match head::may_be_complete(bytes, parsed_bytes, limits) {
                true => parse_head(bytes, limits)?,
                false => None,
            };
            let Some((head, size)) = parsed else {
                // The timeout of a head starts at its first byte, which empty lines before it are not.
                if !*has_begun && bytes.iter().any(|byte| !b"\r\n".contains(byte)) {
                    *has_begun = true;
                    self.deadline = Instant::now() + limits.head_timeout;
                }
                return Ok((0, None));
            };
            let body = BodyDecoder::new(head.framing, limits.max_body_bytes);
            self.state = State::ReadingBody { head, body };
            head_bytes = size;
        }
        let bytes = bytes.get(head_bytes..).unwrap_or_default();
        let (body_bytes, request) = self.parse_body(bytes, head_bytes > 0, limits)?;
        Ok((head_bytes + body_bytes, request))
    }

    /// As [`Connection::parse`], after the head, which has just been parsed if `is_new`.
    fn parse_body(
        &mut self,
        bytes: &[u8],
        is_new: bool,
        limits: &Limits,
    ) -> Result<(usize, Option<Request>), HttpError> {
        let State::ReadingBody { head, body } = &mut self.state else {
            return Ok((0, None));
        };
        let taken = body.decode(bytes)?;
        if is_new && !body.is_complete() {
            self.deadline = Instant::now() + limits.body_timeout;
            if head.awaits_continue && bytes.is_empty() {
                // No other output is pending, so the socket takes these few bytes. If it does not, the client sends the
                // body after a while without them (RFC 9110 10.1.1).
                _ = self.socket.write(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
        }
        // A body that came with its head does not count as being received.
        if !is_new || !body.is_complete() {
            self.memory.grow_to(body.held_bytes())?;
        }
        if !body.is_complete() {
            return Ok((taken, None));
        }
        let context = ResponseContext {
            is_head: head.method == "HEAD",
            is_http_10: head.is_http_10,
            keep_alive: head.keep_alive,
        };
        let method = std::mem::take(&mut head.method);
        let target = std::mem::take(&mut head.target);
        let headers = std::mem::take(&mut head.headers);
        let body = body.take_bytes();
        self.state = State::InHandler(context);
        let request = Request::fake_http_from(self.peer, method, target, headers, body);
        Ok((taken, Some(request)))
    }

    fn send_error(
        &mut self,
        error: HttpError,
        lookup: &HeaderLookup,
        is_head: bool,
        buffers: &mut WorkerBuffers,
    ) -> bool {
        let (status, detail) = (error.status(), error.detail());
        log::debug!("{} is answered {status}: {detail}", self.peer);
        self.input = Vec::new();
        self.memory.release();
        buffers.writer.write_error(error, lookup, is_head);
        self.send(Next::Linger, buffers)
    }

    /// Writes the output. What the socket does not take is kept until it does, if there is memory for it. Returns false if
    /// the connection must be closed.
    fn send(&mut self, next: Next, buffers: &WorkerBuffers) -> bool {
        let output = &buffers.writer.output;
        let Ok(written) = self.socket.write(output) else {
            return false;
        };
        let rest = output.get(written..).unwrap_or_default();
        if rest.is_empty() {
            return self.begin_next(next, &buffers.limits);
        }
        if self.memory.grow_to(rest.len()).is_err() {
            increment(&buffers.stats.write_timeouts);
            return false;
        }
        self.state = State::Writing {
            rest: rest.to_vec(),
            written: 0,
            next,
        };
        self.deadline = Instant::now() + buffers.limits.write_timeout;
        true
    }

    /// Returns false if the connection must be closed.
    fn begin_next(&mut self, next: Next, limits: &Limits) -> bool {
        match next {
            Next::ReadRequest => {
                self.state = State::ReadingHead { has_begun: false };
                self.deadline = Instant::now() + limits.idle_timeout;
            }
            Next::Linger => self.linger(LINGER_TIMEOUT),
            Next::Close => {}
        }
        next != Next::Close
    }

    fn linger(&mut self, timeout: Duration) {
        // An error means that the client is gone, which the next read reports too.
        _ = self.socket.0.shutdown(Shutdown::Write);
        let lingering = Lingering {
            remaining_bytes: MAX_LINGER_BYTES,
            end: Instant::now() + timeout,
        };
        self.deadline = lingering.deadline();
        self.state = State::Lingering(lingering);
    }
}

/// Bytes that a client may send after the last response, and for how long: many clients read a response only after they
/// have sent their whole request.
const MAX_LINGER_BYTES: usize = 1024 * 1024 * 1024;
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a lingering connection may be silent.
const LINGER_SILENCE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an idle connection lingers, so that a request that crosses the FIN does not cause a reset.
const LINGER_AFTER_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads of a lingering connection before other connections have their turn.
const MAX_LINGER_READS: usize = 16;

/// The end of a connection: after the FIN, what the client still sends is read and dropped. Closing a socket with unread
/// bytes resets the connection, and the client may then lose the last response (RFC 9112 9.6).
struct Lingering {
    remaining_bytes: usize,
    end: Instant,
}

impl Lingering {
    fn deadline(&self) -> Instant {
        self.end.min(Instant::now() + LINGER_SILENCE_TIMEOUT)
    }

    fn discard_input(&mut self, socket: &Socket, buffer: &mut Vec<u8>) -> Progress {
        for _ in 0..MAX_LINGER_READS {
            buffer.clear();
            let Some(read) = socket.read(buffer) else {
                return Progress::WaitForSocket;
            };
            self.remaining_bytes = self.remaining_bytes.saturating_sub(read);
            if read == 0 || self.remaining_bytes == 0 || Instant::now() >= self.end {
                return Progress::Close;
            }
        }
        Progress::Yield
    }
}

/// A non-blocking socket.
pub struct Socket(pub TcpStream);

impl Socket {
    /// Appends bytes to `buffer`, within its capacity. Returns how many, or `None` if none are there for now; 0 if the client
    /// closed its side, or the connection failed.
    fn read(&self, buffer: &mut Vec<u8>) -> Option<usize> {
        match retry_on_intr(|| recv(&self.0, spare_capacity(buffer), RecvFlags::empty())) {
            Err(Errno::WOULDBLOCK) => None,
            received => Some(received.map_or(0, |(_, length)| length)),
        }
    }

    /// Writes until the socket takes no more for now. Returns how many bytes were written.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match (&self.0).write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes.len() - rest.len())
    }

    fn has_input(&self) -> bool {
        matches!(self.0.peek(&mut [0]), Ok(1..))
    }
}

impl Drop for Socket {
    /// Ends the connection at once. Closing alone does not: a thread inside epoll_wait may still hold a reference to the
    /// file, and the kernel sends no FIN before that thread returns.
    fn drop(&mut self) {
        // An error means that the client is gone.
        _ = self.0.shutdown(Shutdown::Both);
    }
}
