//! What a thread works with: buffers, limits, counters. Knows no connections.
use std::sync::Arc;

use super::counters::Counters;
use super::error_headers::ErrorHeaders;
use super::limits::Limits;
use super::response::Clock;

/// What is read at once beside a head of the largest size: so much, too, a client can send ahead.
const READ_BYTES: usize = 4 * 1024;

/// What a thread works with. Its buffers are lent to one connection after the other: an idle connection has none.
pub struct Desk {
    /// What is allowed.
    pub limits: Limits,
    /// What happened.
    pub counters: Arc<Counters>,
    /// What was read last; of fixed size, which a head and a little more fits into.
    pub input: Vec<u8>,
    /// What is to be written.
    pub output: Vec<u8>,
    /// The application's headers on error responses.
    pub error_headers: ErrorHeaders,
    /// The date of answers.
    pub clock: Clock,
}

impl Desk {
    /// For connections of these limits.
    pub fn new(limits: Limits, counters: Arc<Counters>, error_headers: ErrorHeaders) -> Desk {
        Desk {
            limits,
            counters,
            input: vec![0; limits.head_bytes + READ_BYTES],
            output: Vec::new(),
            error_headers,
            clock: Clock::default(),
        }
    }
}
