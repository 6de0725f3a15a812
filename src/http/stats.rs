//! Counters and gauges of the server. They are for observers only: no decision in the server reads them.
use std::sync::atomic::{AtomicU64, Ordering};

/// Gauges, and counters since the start. Every thread of the server updates them without a lock, so two values that are
/// read together may be one event apart.
#[derive(Debug, Default)]
pub struct Stats {
    /// Gauge: open connections, including those being rejected.
    pub connections: AtomicU64,
    /// Gauge: handlers that run.
    pub in_flight: AtomicU64,
    /// Gauge: requests in the admission queue.
    pub queued: AtomicU64,
    /// Gauge: bytes of request bodies that are being received, and of responses that clients have not taken yet.
    pub buffered_bytes: AtomicU64,
    /// Accepted connections, including those rejected afterwards.
    pub accepted: AtomicU64,
    /// Connections rejected because [`Limits::max_connections`](super::Limits::max_connections) was reached.
    pub rejected_connections: AtomicU64,
    /// Requests received completely.
    pub requests: AtomicU64,
    /// Requests that the server itself answered with a 4xx status or 505.
    pub rejected_requests: AtomicU64,
    /// Requests answered 503 because no worker, or no memory for their body, was free.
    pub shed: AtomicU64,
    /// Handlers that returned after the deadline of their request.
    pub handler_timeouts: AtomicU64,
    /// Handlers and classifiers that panicked.
    pub handler_panics: AtomicU64,
    /// Connections closed because a request's head was not complete within its timeout.
    pub head_timeouts: AtomicU64,
    /// Connections closed because a request's body was not complete within its timeout.
    pub body_timeouts: AtomicU64,
    /// Connections closed because the client did not take a response within its timeout, or because there was no memory
    /// for the rest of a response.
    pub write_timeouts: AtomicU64,
    /// Failed calls of accept(2).
    pub accept_errors: AtomicU64,
}

/// Adds one to a counter.
pub(super) fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Sets a gauge.
pub(super) fn set_gauge(gauge: &AtomicU64, value: usize) {
    gauge.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
}
