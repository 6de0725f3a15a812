//! Observability: log lines, metrics, and the timings of each request. No decision of the program depends on it.
pub mod logging;
pub mod metrics;
pub mod timings;
