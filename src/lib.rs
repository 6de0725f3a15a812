//! movies-api keeps movies for signed-in users: a synchronous thread-pool server on PostgreSQL.
//!
//! src/README.md describes the parts, the threads, and the way of a request through them.

pub mod api;
pub mod auth;
pub mod cli;
pub mod config;
pub mod db;
pub mod http;
pub mod python_text;
pub mod telemetry;
