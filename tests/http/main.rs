//! The HTTP server over real sockets, without a database. Each test starts a server of its own on a port of its own.
//!
//! Run one module with `cargo test --test http limits::`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failure is a failed test
#![allow(clippy::indexing_slicing)]

mod drain;
mod error_headers;
mod framing;
mod limits;
mod overload;
mod pipeline;
mod support;
