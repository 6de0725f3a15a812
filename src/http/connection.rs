//! One connection: its socket, its state machine (drawn in the module comment of `http`), and the memory it has reserved.
//! Nothing here waits: if the socket has no bytes or takes none, the connection says so, and its owner checks it into the
//! slab.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rouille::{Request, Response};

use super::body::BodyDecoder;
use super::head::{self, Head, parse_head};
use super::limits::Limits;
use super::poller::SocketEvent;
use super::response::{
    Clock, ErrorRenderer, HeaderLookup, HttpError, ResponseContext, write_error, write_response,
};
use super::slab::Token;
use super::stats::{Stats, increment};

/// How long a request may take to be read that arrives as the idle timeout of its connection ends.
const LAST_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that are read at once in addition to a head of maximum size. A client can pipeline that many.
const READ_AHEAD_BYTES: usize = 4 * 1024;

/// The buffers of one thread, lent to one connection at a time: an idle connection has none of its own.
pub struct WorkerBuffers {
    pub limits: Limits,
    pub stats: Arc<Stats>,
    pub errors: ErrorRenderer,
    /// Bytes read from the socket. Its length is fixed, for a head of maximum size and some more.
    input: Vec<u8>,
    /// The response to be written.
    output: Vec<u8>,
    clock: Clock,
}

impl WorkerBuffers {
    pub fn new(limits: Limits, stats: Arc<Stats>, errors: ErrorRenderer) -> WorkerBuffers {
        WorkerBuffers {
            limits,
            stats,
            errors,
            input: vec![0; limits.max_head_bytes + READ_AHEAD_BYTES],
            output: Vec::new(),
            clock: Clock::default(),
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
    /// Bytes of the next request came before the last response was sent, or before the connection was idle after it.
    is_pipelining: bool,
    /// Cleared by each response.
    has_read_since_response: bool,
}

enum State {
    /// Within a head if `has_begun`, else between requests.
    ReadingHead {
        has_begun: bool,
    },
    ReadingBody(Box<(Head, BodyDecoder)>),
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

/// What becomes of a connection at its deadline.
pub enum Expired {
    /// It stays open, and needs no handler.
    Open,
    /// It was idle, but bytes have just come, which a worker has to read.
    Readable,
    Closed,
}

/// An error in the bytes of a request, with the request's head if that was parsed by then.
struct Rejection {
    error: HttpError,
    head: Option<Head>,
}

impl Connection {
    /// Creates the state of a connection that was just accepted.
    pub fn new(
        token: Token,
        socket: Socket,
        peer: SocketAddr,
        limits: &Limits,
        memory: Reservation,
    ) -> Connection {
        Connection {
            token,
            deadline: Instant::now() + limits.idle_timeout,
            socket,
            watches_writable: false,
            peer,
            state: State::ReadingHead { has_begun: false },
            input: Vec::new(),
            parsed_bytes: 0,
            memory,
            is_drained: false,
            is_hung_up: false,
            is_pipelining: false,
            has_read_since_response: true,
        }
    }

    /// Whether the request that was read last was pipelined.
    pub fn is_pipelining(&self) -> bool {
        self.is_pipelining
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
                State::ReadingHead { .. } | State::ReadingBody(_) => {
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
                    let next = *next;
                    match self.socket.write(rest, written) {
                        Ok(true) if next == Next::Close => return Progress::Close,
                        Ok(true) => {
                            self.memory.release();
                            // The poller did not report what came in the meantime.
                            self.is_drained = false;
                            self.begin_next(next, &buffers.limits);
                        }
                        Ok(false) => return Progress::WaitForSocket,
                        Err(_) => return Progress::Close,
                    }
                }
                State::Lingering(lingering) => {
                    let discarded = lingering.discard_input(&self.socket, &mut buffers.input);
                    self.deadline = lingering.deadline();
                    return match discarded {
                        Discarded::All => Progress::WaitForSocket,
                        Discarded::Some => Progress::Yield,
                        Discarded::Enough => Progress::Close,
                    };
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
        let WorkerBuffers {
            output,
            clock,
            errors,
            ..
        } = buffers;
        if let Err(error) = write_response(output, response, context, closes, clock) {
            log::error!("{error}");
            let response = errors.render(HttpError::Internal, &|_| None);
            if write_response(output, response, context, closes, clock).is_err() {
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
        self.reject_head(Rejection { error, head: None }, buffers)
    }

    /// Acts on the deadline. The time that a connection spends in the admission queue or in a handler is limited there.
    pub fn expire(&mut self, buffers: &mut WorkerBuffers) -> Expired {
        let timeouts = match &self.state {
            State::ReadingHead { has_begun: false } => return self.end_idle(),
            State::InHandler(_) | State::Lingering(_) => return Expired::Closed,
            State::Writing { .. } => {
                increment(&buffers.stats.write_timeouts);
                return Expired::Closed;
            }
            State::ReadingHead { has_begun: true } => &buffers.stats.head_timeouts,
            State::ReadingBody(_) => &buffers.stats.body_timeouts,
        };
        increment(timeouts);
        increment(&buffers.stats.rejected_requests);
        match self.reject(HttpError::RequestTimeout, buffers) {
            true => Expired::Open,
            false => Expired::Closed,
        }
    }

    /// Ends an idle connection, unless unread bytes have come. The FIN is sent before the socket is closed: the client
    /// learns of the end, and a request that crosses the FIN does not cause a reset.
    pub fn end_idle(&mut self) -> Expired {
        if self.socket.has_input() {
            self.is_drained = false;
            self.deadline = Instant::now() + LAST_READ_TIMEOUT;
            return Expired::Readable;
        }
        self.linger(Lingering::after_silence());
        Expired::Open
    }

    /// Reads and parses until a request is complete or the socket has no more bytes. Returns `None` after it sent an error
    /// response.
    fn receive(&mut self, buffers: &mut WorkerBuffers) -> Option<Progress> {
        let mut filled = self.input.len();
        let mut parsed = std::mem::take(&mut self.parsed_bytes);
        if let Some(input) = buffers.input.get_mut(..filled) {
            input.copy_from_slice(&self.input);
        }
        self.input = Vec::new();
        loop {
            let bytes = buffers.input.get(..filled).unwrap_or_default();
            match self.parse(bytes, parsed, &buffers.limits) {
                Ok((taken, Some(request))) => {
                    increment(&buffers.stats.requests);
                    self.input = bytes.get(taken..).unwrap_or_default().to_vec();
                    return Some(Progress::Request(request));
                }
                Ok((taken, None)) => {
                    buffers.input.copy_within(taken..filled, 0);
                    filled -= taken;
                    parsed = filled;
                }
                Err(rejection) => {
                    increment(match rejection.error {
                        HttpError::Overloaded => &buffers.stats.shed,
                        _ => &buffers.stats.rejected_requests,
                    });
                    self.input = bytes.to_vec();
                    let is_open = self.reject_head(*rejection, buffers);
                    return (!is_open).then_some(Progress::Close);
                }
            }
            if self.is_drained {
                self.input = buffers.input.get(..filled).unwrap_or_default().to_vec();
                self.parsed_bytes = filled;
                return Some(Progress::WaitForSocket);
            }
            let free = buffers.input.get_mut(filled..).unwrap_or_default();
            self.has_read_since_response = true;
            match self.socket.read(free) {
                ReadResult::Bytes(read) => {
                    // Fewer bytes than fit are all that was there. The end of the stream needs a read of its own.
                    self.is_drained = read < free.len() && !self.is_hung_up;
                    filled += read;
                }
                ReadResult::Nothing => {
                    self.is_drained = true;
                    if let State::ReadingHead { has_begun: false } = self.state {
                        self.is_pipelining = false;
                    }
                }
                ReadResult::End => return Some(Progress::Close),
            }
        }
    }

    /// Returns how many bytes were taken, and the request that they complete. `parsed` bytes were parsed before.
    fn parse(
        &mut self,
        bytes: &[u8],
        parsed: usize,
        limits: &Limits,
    ) -> Result<(usize, Option<Request>), Box<Rejection>> {
        let without_head = |error| Box::new(Rejection { error, head: None });
        match &mut self.state {
            State::ReadingHead { .. } => {
                let found = match head::may_be_complete(bytes, parsed, limits) {
                    true => parse_head(bytes, limits).map_err(without_head)?,
                    false => None,
                };
                if let Some((head, head_bytes)) = found {
                    return self.begin_body(head, head_bytes, bytes, limits);
                }
                self.note_beginning(bytes, limits);
                Ok((0, None))
            }
            State::ReadingBody(body) => {
                let taken = body.1.decode(bytes).map_err(without_head)?;
                let reserved = self.memory.grow_to(body.1.held_bytes());
                reserved.map_err(without_head)?;
                if !body.1.is_complete() {
                    return Ok((taken, None));
                }
                let state = State::ReadingHead { has_begun: false };
                match std::mem::replace(&mut self.state, state) {
                    State::ReadingBody(body) => Ok((taken, Some(self.finish(body.0, body.1)))),
                    _ => Ok((taken, None)),
                }
            }
            _ => Ok((0, None)),
        }
    }

    /// Continues after a head, which is the first `head_bytes` of `bytes`.
    fn begin_body(
        &mut self,
        head: Head,
        head_bytes: usize,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<(usize, Option<Request>), Box<Rejection>> {
        let rest = bytes.get(head_bytes..).unwrap_or_default();
        match self.decode_first_bytes(&head, rest, limits) {
            Ok((body_bytes, decoder)) => {
                let taken = head_bytes + body_bytes;
                if decoder.is_complete() {
                    return Ok((taken, Some(self.finish(head, decoder))));
                }
                self.state = State::ReadingBody(Box::new((head, decoder)));
                self.deadline = Instant::now() + limits.body_timeout;
                Ok((taken, None))
            }
            Err(error) => {
                let head = Some(head);
                Err(Box::new(Rejection { error, head }))
            }
        }
    }

    fn decode_first_bytes(
        &mut self,
        head: &Head,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<(usize, BodyDecoder), HttpError> {
        let mut decoder = BodyDecoder::new(head.framing, limits.max_body_bytes)?;
        let taken = decoder.decode(bytes)?;
        if !decoder.is_complete() {
            if head.awaits_continue && bytes.is_empty() {
                self.send_continue();
            }
            self.memory.grow_to(decoder.held_bytes())?;
        }
        Ok((taken, decoder))
    }

    /// Starts the timeout of a head at its first byte, which empty lines before it are not.
    fn note_beginning(&mut self, bytes: &[u8], limits: &Limits) {
        let has_begun = matches!(self.state, State::ReadingHead { has_begun: true });
        if !has_begun && bytes.iter().any(|byte| !b"\r\n".contains(byte)) {
            self.state = State::ReadingHead { has_begun: true };
            self.deadline = Instant::now() + limits.head_timeout;
        }
    }

    fn finish(&mut self, head: Head, decoder: BodyDecoder) -> Request {
        self.state = State::InHandler(ResponseContext::new(&head));
        let body = decoder.into_bytes();
        Request::fake_http_from(self.peer, head.method, head.target, head.headers, body)
    }

    /// Sends 100 Continue. No other output is pending, so the socket takes these few bytes. If it does not, the client
    /// sends the body after a while without them (RFC 9110 10.1.1).
    fn send_continue(&self) {
        _ = self.socket.write(b"HTTP/1.1 100 Continue\r\n\r\n", &mut 0);
    }

    fn reject_head(&mut self, rejection: Rejection, buffers: &mut WorkerBuffers) -> bool {
        let Rejection { error, mut head } = rejection;
        let state = State::ReadingHead { has_begun: false };
        if let State::ReadingBody(body) = std::mem::replace(&mut self.state, state) {
            head = Some(body.0);
        }
        let is_head = match &head {
            Some(head) => head.method == "HEAD",
            None => head::begins_with_head_method(&self.input),
        };
        let lookup = |name: &str| head.as_ref().and_then(|head| head.header(name));
        self.send_error(error, &lookup, is_head, buffers)
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
        let WorkerBuffers {
            output,
            clock,
            errors,
            ..
        } = buffers;
        write_error(output, errors, error, lookup, is_head, clock);
        self.send(Next::Linger, buffers)
    }

    /// Writes the output. What the socket does not take is kept until it does, if there is memory for it. Returns false if
    /// the connection must be closed.
    fn send(&mut self, next: Next, buffers: &WorkerBuffers) -> bool {
        let mut written = 0;
        match self.socket.write(&buffers.output, &mut written) {
            Ok(true) if next == Next::Close => return false,
            Ok(true) => self.begin_next(next, &buffers.limits),
            Ok(false) => {
                let rest = buffers.output.get(written..).unwrap_or_default().to_vec();
                if self.memory.grow_to(rest.len()).is_err() {
                    increment(&buffers.stats.write_timeouts);
                    return false;
                }
                self.state = State::Writing {
                    rest,
                    written: 0,
                    next,
                };
                self.deadline = Instant::now() + buffers.limits.write_timeout;
            }
            Err(_) => return false,
        }
        true
    }

    fn begin_next(&mut self, next: Next, limits: &Limits) {
        if next == Next::Linger {
            self.linger(Lingering::after_response());
        } else {
            self.state = State::ReadingHead { has_begun: false };
            self.deadline = Instant::now() + limits.idle_timeout;
        }
    }

    fn linger(&mut self, lingering: Lingering) {
        self.socket.shut_down_writing();
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

enum Discarded {
    /// Everything that had arrived.
    All,
    /// As much as is read at once.
    Some,
    /// Everything that the client sends, or that it may send.
    Enough,
}

impl Lingering {
    fn after_response() -> Lingering {
        Lingering {
            remaining_bytes: MAX_LINGER_BYTES,
            end: Instant::now() + LINGER_TIMEOUT,
        }
    }

    fn after_silence() -> Lingering {
        Lingering {
            remaining_bytes: MAX_LINGER_BYTES,
            end: Instant::now() + LINGER_AFTER_IDLE_TIMEOUT,
        }
    }

    fn deadline(&self) -> Instant {
        self.end.min(Instant::now() + LINGER_SILENCE_TIMEOUT)
    }

    fn discard_input(&mut self, socket: &Socket, buffer: &mut [u8]) -> Discarded {
        for _ in 0..MAX_LINGER_READS {
            match socket.read(buffer) {
                ReadResult::Bytes(read) => {
                    self.remaining_bytes = self.remaining_bytes.saturating_sub(read);
                }
                ReadResult::Nothing => return Discarded::All,
                ReadResult::End => return Discarded::Enough,
            }
            if self.remaining_bytes == 0 || Instant::now() >= self.end {
                return Discarded::Enough;
            }
        }
        Discarded::Some
    }
}

/// A non-blocking socket.
pub struct Socket(TcpStream);

enum ReadResult {
    Bytes(usize),
    /// No bytes are there for now.
    Nothing,
    /// The client closed its side, or the connection failed.
    End,
}

impl Socket {
    /// Takes a stream that is already non-blocking.
    pub fn new(stream: TcpStream) -> Socket {
        Socket(stream)
    }

    fn read(&self, buffer: &mut [u8]) -> ReadResult {
        loop {
            return match (&self.0).read(buffer) {
                Ok(0) => ReadResult::End,
                Ok(read) => ReadResult::Bytes(read),
                Err(error) if error.kind() == ErrorKind::WouldBlock => ReadResult::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => ReadResult::End,
            };
        }
    }

    /// Writes the bytes from `written` on. Returns true if all are written, false if the socket takes no more for now.
    fn write(&self, bytes: &[u8], written: &mut usize) -> io::Result<bool> {
        loop {
            let rest = bytes.get(*written..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(true);
            }
            match (&self.0).write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => *written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn shut_down_writing(&self) {
        // An error means that the client is gone, which the next read reports too.
        _ = self.0.shutdown(Shutdown::Write);
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

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A reservation up to this size succeeds whatever other connections hold, so that small requests are served while others
/// fill the budget slowly.
const ALWAYS_GRANTED_BYTES: usize = 16 * 1024;

/// The memory for request bodies and for rests of responses that all connections share:
/// [`Limits::max_buffered_bytes`].
pub struct MemoryBudget {
    limit_bytes: u64,
    reserved_bytes: AtomicU64,
    stats: Arc<Stats>,
}

impl MemoryBudget {
    pub fn new(limits: &Limits, stats: Arc<Stats>) -> MemoryBudget {
        MemoryBudget {
            limit_bytes: to_u64(limits.max_buffered_bytes),
            reserved_bytes: AtomicU64::new(0),
            stats,
        }
    }
}

/// One connection's part of the budget, which is returned to it on drop.
pub struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl Reservation {
    /// Creates a reservation of no bytes.
    pub fn new(budget: Arc<MemoryBudget>) -> Reservation {
        Reservation { budget, bytes: 0 }
    }

    /// Grows the reservation to `bytes`, if it is smaller.
    ///
    /// # Errors
    /// [`HttpError::Overloaded`] if the budget is exceeded and the reservation is larger than is always granted.
    fn grow_to(&mut self, bytes: usize) -> Result<(), HttpError> {
        let more = to_u64(bytes).saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        self.bytes += more;
        let budget = &self.budget;
        let before = budget.reserved_bytes.fetch_add(more, Ordering::Relaxed);
        let gauge = &budget.stats.buffered_bytes;
        gauge.fetch_add(more, Ordering::Relaxed);
        if bytes > ALWAYS_GRANTED_BYTES && before + more > budget.limit_bytes {
            return Err(HttpError::Overloaded);
        }
        Ok(())
    }

    fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            let budget = &self.budget;
            budget.reserved_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let gauge = &budget.stats.buffered_bytes;
            gauge.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
