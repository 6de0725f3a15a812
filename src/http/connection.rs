//! One connection as a state machine: reading a head, reading a body, being answered, sending, lingering. It never
//! waits: whatever is not there yet, the poller tells.
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rouille::{Request, Response};

use super::body::Decoder;
use super::counters::{Counters, count};
use super::desk::Desk;
use super::error_headers::{ErrorHeaders, Header};
use super::limits::Limits;
use super::lingering::{Dropped, Lingering};
use super::memory::Reservation;
use super::refusal::Refusal;
use super::request::{self, Head, parse_head};
use super::response::{Answering, write_refusal, write_response};
use super::socket::{Received, Socket};
use super::table::Key;

/// How long a request may take to be found on a connection whose idle time is over.
const LAST_LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// A client's connection.
pub struct Connection {
    /// Its place in the table.
    pub key: Key,
    /// When it has waited too long in its stage.
    pub deadline: Instant,
    /// Its socket, which the poller watches.
    pub socket: Socket,
    /// The poller tells when the socket takes more, instead of what comes from it.
    pub watches_writing: bool,
    peer: SocketAddr,
    stage: Stage,
    /// Read, and not yet understood: the beginning of a head, or requests sent ahead.
    input: Vec<u8>,
    /// So many bytes of `input` were looked at without finding a head's end.
    judged_bytes: usize,
    /// The application's headers for an error response to the request at hand; none until its head is read.
    error_headers: Option<Vec<Header>>,
    /// Holds the bytes of its body, or of the rest of its answer.
    memory: Reservation,
    /// Nothing more was in the socket when it was last read.
    is_drained: bool,
    /// The client will send nothing more; what it sent is still answered.
    is_hung_up: bool,
    /// Something of the next request had come before the last response was sent.
    sends_ahead: bool,
}

enum Stage {
    /// Idle while `begun` is false, else within a head.
    Head { begun: bool },
    /// Within a body.
    Body(Box<(Head, Decoder)>),
    /// A worker has the request.
    Answering(Answering),
    /// The socket takes no more for now.
    Sending {
        rest: Vec<u8>,
        sent: usize,
        next: Next,
    },
    /// Nothing more is sent, and what the client still sends is dropped.
    Lingering(Lingering),
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Head,
    Close,
    /// As close, but the client may still be sending: closing then would reset the connection, and the answer
    /// could be lost (RFC 9112 9.6).
    Linger,
}

/// What a connection needs now.
pub enum Step {
    /// A handler for this request.
    Answer(Request),
    /// Its socket, until its deadline.
    Wait,
    /// Its next turn, behind others.
    Yield,
    /// Its end.
    Close,
}

/// What becomes of a connection at its deadline.
pub enum Expired {
    /// It goes on, with nothing that a handler would have to begin for.
    Open,
    /// Its idle time is over, but something came in the last moment, and is read as usual.
    Readable,
    /// It ends.
    Closed,
}

impl Connection {
    /// One that has just been accepted.
    pub fn new(
        key: Key,
        socket: Socket,
        peer: SocketAddr,
        limits: &Limits,
        memory: Reservation,
    ) -> Connection {
        Connection {
            key,
            deadline: Instant::now() + limits.idle_deadline,
            socket,
            watches_writing: false,
            peer,
            stage: Stage::Head { begun: false },
            input: Vec::new(),
            judged_bytes: 0,
            error_headers: None,
            memory,
            is_drained: false,
            is_hung_up: false,
            sends_ahead: false,
        }
    }

    /// Whether the request that was read last had been sent before the response to the one before.
    pub fn sends_ahead(&self) -> bool {
        self.sends_ahead
    }

    /// Notes that something happened on the socket.
    pub fn stir(&mut self, is_hung_up: bool) {
        self.is_drained = false;
        self.is_hung_up |= is_hung_up;
    }

    /// Whether it waits for its socket to take more.
    pub fn is_sending(&self) -> bool {
        matches!(self.stage, Stage::Sending { .. })
    }

    /// Whether it is silent between requests, with a deadline of that silence not after this, and its socket has nothing
    /// to read.
    pub fn is_idle(&self, latest_deadline: Instant) -> bool {
        matches!(self.stage, Stage::Head { begun: false })
            && self.deadline <= latest_deadline
            && !self.socket.has_more()
    }

    /// Goes on as far as the socket allows.
    pub fn advance(&mut self, desk: &mut Desk) -> Step {
        loop {
            match &mut self.stage {
                Stage::Head { .. } | Stage::Body(_) => {
                    if let Some(step) = self.receive(desk) {
                        return step;
                    }
                }
                Stage::Answering(_) => return Step::Wait,
                Stage::Sending { rest, sent, next } => {
                    let next = *next;
                    match self.socket.send(rest, sent) {
                        Ok(true) if next == Next::Close => return Step::Close,
                        Ok(true) => {
                            self.memory.release();
                            // What came in the meantime was not told.
                            self.is_drained = false;
                            self.go_on(next, &desk.limits);
                        }
                        Ok(false) => return Step::Wait,
                        Err(_) => return Step::Close,
                    }
                }
                Stage::Lingering(lingering) => {
                    let dropped = lingering.drop_input(&self.socket, &mut desk.input);
                    self.deadline = lingering.deadline();
                    return match dropped {
                        Dropped::All => Step::Wait,
                        Dropped::Some => Step::Yield,
                        Dropped::Enough => Step::Close,
                    };
                }
            }
        }
    }

    /// Sends a handler's answer; false if the connection ends with it. While the server drains, the answer to the
    /// last request that came says so, and each once requests are no longer taken.
    pub fn answer(
        &mut self,
        response: Response,
        desk: &mut Desk,
        taken_until: Option<Instant>,
    ) -> bool {
        let Stage::Answering(answering) = self.stage else {
            return false;
        };
        self.memory.release();
        self.sends_ahead = !self.input.is_empty() || !self.is_drained;
        let has_more = || !self.input.is_empty() || self.socket.has_more();
        let is_last = taken_until.is_some_and(|until| Instant::now() > until || !has_more());
        let closes = is_last || !answering.keeps_alive;
        let may_send_more = answering.keeps_alive || !self.input.is_empty() || !self.is_drained;
        let next = match closes {
            false => Next::Head,
            true if may_send_more => Next::Linger,
            true => Next::Close,
        };
        let Desk { output, clock, .. } = desk;
        write_response(output, response, answering, closes, clock);
        self.send(output, next, &desk.limits, &desk.counters)
    }

    /// Sends the server's own answer, after which the connection lingers and ends; false if it ended.
    pub fn refuse(&mut self, refusal: Refusal, desk: &mut Desk) -> bool {
        log::debug!(
            "{} refused: {} {}",
            self.peer,
            refusal.status(),
            refusal.detail()
        );
        let is_head = match &self.stage {
            Stage::Answering(answering) => answering.is_head,
            Stage::Body(body) => body.0.method == "HEAD",
            _ => request::begins_with_head(&self.input),
        };
        self.input = Vec::new();
        self.memory.release();
        let headers = self.error_headers.take();
        let headers = headers.unwrap_or_else(|| desk.error_headers.of(&|_| None));
        let Desk { output, clock, .. } = desk;
        write_refusal(output, refusal, &headers, is_head, clock);
        self.send(output, Next::Linger, &desk.limits, &desk.counters)
    }

    /// Does what the deadline means in the stage that it found.
    pub fn expire(&mut self, desk: &mut Desk) -> Expired {
        let refusal = match &self.stage {
            Stage::Head { begun: false } => return self.end_idle(),
            Stage::Lingering(_) => return Expired::Closed,
            Stage::Sending { .. } => {
                count(&desk.counters.cut_writes);
                return Expired::Closed;
            }
            Stage::Head { begun: true } => {
                count(&desk.counters.cut_heads);
                Refusal::Slow
            }
            Stage::Body(_) => {
                count(&desk.counters.cut_bodies);
                Refusal::Slow
            }
            Stage::Answering(_) => {
                count(&desk.counters.handler_timeouts);
                Refusal::Stuck
            }
        };
        if refusal == Refusal::Slow {
            count(&desk.counters.refusals);
        }
        match self.refuse(refusal, desk) {
            true => Expired::Open,
            false => Expired::Closed,
        }
    }

    /// Ends an idle connection, unless something has come that nobody has read yet. The FIN goes first, so that the
    /// client learns of the end, and what crosses it on the way meets no reset.
    pub fn end_idle(&mut self) -> Expired {
        if self.socket.has_more() {
            self.is_drained = false;
            self.deadline = Instant::now() + LAST_LOOK_TIMEOUT;
            return Expired::Readable;
        }
        self.linger(Lingering::after_silence());
        Expired::Open
    }

    /// Reads and understands until there is a request, or nothing more to read. None if a refusal was sent.
    fn receive(&mut self, desk: &mut Desk) -> Option<Step> {
        let mut filled = self.input.len();
        let mut judged = std::mem::take(&mut self.judged_bytes);
        if let Some(input) = desk.input.get_mut(..filled) {
            input.copy_from_slice(&self.input);
        }
        self.input = Vec::new();
        loop {
            let bytes = desk.input.get(..filled).unwrap_or_default();
            match self.understand(bytes, judged, &desk.limits, &desk.error_headers) {
                Ok((taken, Some(request))) => {
                    count(&desk.counters.requests);
                    self.input = bytes.get(taken..).unwrap_or_default().to_vec();
                    return Some(Step::Answer(request));
                }
                Ok((taken, None)) => {
                    desk.input.copy_within(taken..filled, 0);
                    filled -= taken;
                    judged = filled;
                }
                Err(refusal) => {
                    count(match refusal {
                        Refusal::Busy => &desk.counters.shed,
                        _ => &desk.counters.refusals,
                    });
                    self.input = bytes.to_vec();
                    let is_open = self.refuse(refusal, desk);
                    return (!is_open).then_some(Step::Close);
                }
            }
            if self.is_drained {
                self.input = desk.input.get(..filled).unwrap_or_default().to_vec();
                self.judged_bytes = filled;
                return Some(Step::Wait);
            }
            let room = desk.input.get_mut(filled..).unwrap_or_default();
            match self.socket.receive(room) {
                Received::Bytes(read) => {
                    // Less than there was room for: all that was there. The end of the stream is told by a read
                    // of its own.
                    self.is_drained = read < room.len() && !self.is_hung_up;
                    filled += read;
                }
                Received::Nothing => self.is_drained = true,
                Received::End => return Some(Step::Close),
            }
        }
    }

    /// How many bytes were understood, and the request that is whole with them. Those before `judged` were looked
    /// at before.
    fn understand(
        &mut self,
        bytes: &[u8],
        judged: usize,
        limits: &Limits,
        error_headers: &ErrorHeaders,
    ) -> Result<(usize, Option<Request>), Refusal> {
        let mut taken = 0;
        if let Stage::Head { .. } = self.stage {
            let found = match request::may_be_judged(bytes, judged, limits) {
                true => parse_head(bytes, limits)?,
                false => None,
            };
            let Some((head, head_bytes)) = found else {
                self.note_beginning(bytes, limits);
                return Ok((0, None));
            };
            taken = head_bytes;
            self.error_headers = Some(error_headers.of(&|name| head.header(name)));
            let mut decoder = Decoder::new(head.framing, limits.body_bytes)?;
            if !decoder.is_complete() {
                self.deadline = Instant::now() + limits.body_deadline;
            }
            taken += decoder.decode(bytes.get(taken..).unwrap_or_default())?;
            if decoder.is_complete() {
                return Ok((taken, Some(self.begin_answering(head, decoder))));
            }
            if head.awaits_continue && taken == bytes.len() && taken == head_bytes {
                self.tell_to_continue();
            }
            self.memory.grow_to(decoder.held_bytes())?;
            self.stage = Stage::Body(Box::new((head, decoder)));
            return Ok((taken, None));
        }
        if let Stage::Body(body) = &mut self.stage {
            taken = body.1.decode(bytes)?;
            self.memory.grow_to(body.1.held_bytes())?;
            if body.1.is_complete() {
                let stage = std::mem::replace(&mut self.stage, Stage::Head { begun: false });
                if let Stage::Body(body) = stage {
                    return Ok((taken, Some(self.begin_answering(body.0, body.1))));
                }
            }
        }
        Ok((taken, None))
    }

    /// A head's time runs from its first byte; empty lines before it are none of it.
    fn note_beginning(&mut self, bytes: &[u8], limits: &Limits) {
        let has_begun = matches!(self.stage, Stage::Head { begun: true });
        if !has_begun && bytes.iter().any(|byte| !b"\r\n".contains(byte)) {
            self.stage = Stage::Head { begun: true };
            self.deadline = Instant::now() + limits.head_deadline;
        }
    }

    fn begin_answering(&mut self, head: Head, decoder: Decoder) -> Request {
        self.stage = Stage::Answering(Answering::new(&head));
        let body = decoder.into_bytes();
        Request::fake_http_from(self.peer, head.method, head.target, head.headers, body)
    }

    /// 100 Continue. Nothing else is under way on the socket then, so it takes these few bytes; if it does not, the
    /// client is no worse off than without them (RFC 9110 10.1.1: it may not wait forever).
    fn tell_to_continue(&self) {
        _ = self.socket.send(b"HTTP/1.1 100 Continue\r\n\r\n", &mut 0);
    }

    /// False if the connection ends. What the socket does not take is sent when it does, if there is memory for it.
    fn send(&mut self, bytes: &[u8], next: Next, limits: &Limits, counters: &Counters) -> bool {
        let mut sent = 0;
        match self.socket.send(bytes, &mut sent) {
            Ok(true) if next == Next::Close => return false,
            Ok(true) => self.go_on(next, limits),
            Ok(false) => {
                let rest = bytes.get(sent..).unwrap_or_default().to_vec();
                if self.memory.grow_to(rest.len()).is_err() {
                    count(&counters.cut_writes);
                    return false;
                }
                self.stage = Stage::Sending {
                    rest,
                    sent: 0,
                    next,
                };
                self.deadline = Instant::now() + limits.write_deadline;
            }
            Err(_) => return false,
        }
        true
    }

    fn go_on(&mut self, next: Next, limits: &Limits) {
        if next == Next::Linger {
            self.linger(Lingering::after_response());
        } else {
            self.stage = Stage::Head { begun: false };
            self.error_headers = None;
            self.deadline = Instant::now() + limits.idle_deadline;
        }
    }

    fn linger(&mut self, lingering: Lingering) {
        self.socket.end();
        self.deadline = lingering.deadline();
        self.stage = Stage::Lingering(lingering);
    }
}
