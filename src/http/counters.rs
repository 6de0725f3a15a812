//! What the server counts, for whoever shows it. Knows no format.
use std::sync::atomic::{AtomicU64, Ordering};

/// Gauges and counters since the start. They are written without order among each other, so two of them read
/// together may be an event apart.
#[derive(Debug, Default)]
pub struct Counters {
    /// Gauge: connections that are open.
    pub connections: AtomicU64,
    /// Gauge: handlers that run.
    pub in_flight: AtomicU64,
    /// Gauge: requests that wait for a free worker.
    pub queued: AtomicU64,
    /// Gauge: bytes of bodies that are on their way, or wait with their request, and of answers that are not taken.
    pub body_bytes: AtomicU64,
    /// Connections that were accepted, the refused ones included.
    pub accepted: AtomicU64,
    /// Connections that were refused for their number.
    pub refused: AtomicU64,
    /// Requests that were read whole.
    pub requests: AtomicU64,
    /// Requests that the server refused itself with a 4xx or a 505.
    pub refusals: AtomicU64,
    /// Requests that were answered 503 since no worker, or no memory for the body, was free.
    pub shed: AtomicU64,
    /// Handlers that did not answer within their deadline.
    pub handler_timeouts: AtomicU64,
    /// Handlers that panicked.
    pub panics: AtomicU64,
    /// Connections cut at the deadline of a head.
    pub cut_heads: AtomicU64,
    /// Connections cut at the deadline of a body.
    pub cut_bodies: AtomicU64,
    /// Connections cut at the deadline of an answer that was not taken, or since all together took too little.
    pub cut_writes: AtomicU64,
    /// Accepts that failed.
    pub accept_errors: AtomicU64,
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What a gauge shows now.
pub(super) fn show(gauge: &AtomicU64, value: usize) {
    gauge.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
}
