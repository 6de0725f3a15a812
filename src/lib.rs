//! REST service that stores the movies of registered users in PostgreSQL, on a synchronous thread-pool HTTP server.
//!
//! src/README.md describes the modules, the threads, and the path of a request through them.

pub mod api;
pub mod auth;
pub mod cli;
pub mod config;
pub mod db;
pub mod http;
pub mod python_text;
pub mod telemetry;
