//! What is observed of the running process: log lines, metrics, and how long each stage of a request took.
pub mod logging;
pub mod metrics;
pub mod timings;
