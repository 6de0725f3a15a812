//! The end of a connection on which nothing more is sent: what the client still sends is read and dropped, since closing
//! with unread bytes resets the connection, and the client may then lose the last response (RFC 9112 9.6).
use std::time::{Duration, Instant};

use super::socket::{Received, Socket};

/// How much a client may still send after the last response, and for how long: many clients read only once they have
/// written all.
const MAX_BYTES: usize = 1024 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long nothing may come in that time.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(2);

/// The time after an idle connection was ended: a request that crosses the FIN on its way meets no reset.
const AFTER_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads of one connection before others have their turn.
const READS_AT_ONCE: usize = 16;

/// What a lingering connection may still take.
pub struct Lingering {
    bytes_left: usize,
    until: Instant,
    silence_timeout: Duration,
}

/// What came of reading.
pub enum Dropped {
    /// All that was there.
    All,
    /// One turn's share of it.
    Some,
    /// All that the client sends, or all that it may.
    Enough,
}

impl Lingering {
    /// After a response that was the last.
    pub fn after_response() -> Lingering {
        Lingering {
            bytes_left: MAX_BYTES,
            until: Instant::now() + TIMEOUT,
            silence_timeout: SILENCE_TIMEOUT,
        }
    }

    /// After a silence between requests.
    pub fn after_silence() -> Lingering {
        Lingering {
            until: Instant::now() + AFTER_IDLE_TIMEOUT,
            ..Lingering::after_response()
        }
    }

    /// When it ends if nothing comes.
    pub fn deadline(&self) -> Instant {
        self.until.min(Instant::now() + self.silence_timeout)
    }

    /// Reads and drops one turn's share.
    pub fn drop_input(&mut self, socket: &Socket, buffer: &mut [u8]) -> Dropped {
        for _ in 0..READS_AT_ONCE {
            match socket.receive(buffer) {
                Received::Bytes(read) => self.bytes_left = self.bytes_left.saturating_sub(read),
                Received::Nothing => return Dropped::All,
                Received::End => return Dropped::Enough,
            }
            if self.bytes_left == 0 || Instant::now() >= self.until {
                return Dropped::Enough;
            }
        }
        Dropped::Some
    }
}
