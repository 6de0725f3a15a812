//! Classes of requests: which waiting line a request stands in, and how many handlers of its class run at once.
use std::time::Duration;

/// The class of a request, decided from its method and target before its handler runs. Each class but `Immediate` has
/// a waiting line and limits of its own, so that handlers of one class that hang leave workers for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Answered at once by the worker that read the request, without a permit and without the queue. Its handler may
    /// not block.
    Immediate,
    /// All requests that no other class takes.
    Ordinary,
    /// Reads whose cost varies.
    Heavy,
    /// Requests that change data.
    Write,
    /// Requests that verify a password.
    SignIn,
}

/// The limits of one class, beside the total of [`Limits::workers`](super::Limits::workers).
#[derive(Clone, Copy, Debug)]
pub struct ClassLimits {
    /// Handlers of this class that run at once, at least 1; one more request waits in the line of its class.
    pub max_in_flight: usize,
    /// Once a request of this class has waited this long, newcomers and the newer half of its line are answered 503.
    pub shed_after: Duration,
}
