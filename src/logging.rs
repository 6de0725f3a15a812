//! The log: one struct for a request's line, and the writer behind the `log` facade. Nothing secret passes here:
//! of a request's target only the path is kept, and what a client sent is escaped.
use std::fmt;
use std::io::{LineWriter, stderr};
use std::time::Duration;

use log::{LevelFilter, SetLoggerError};
use simplelog::{ConfigBuilder, WriteLogger};

/// The target of the request lines, so that they can be told from the rest.
pub const REQUESTS: &str = "movies_api::request";

/// What is logged of each request, once it is answered.
pub struct RequestLine<'a> {
    /// The answer's X-Request-Id: sixteen hexadecimal digits, or what a trusted proxy gave, judged before.
    pub request_id: &'a str,
    /// As the client sent it.
    pub method: &'a str,
    /// The target's path without its query, which may hold a secret.
    pub path: &'a str,
    /// The answer's status code.
    pub status: u16,
    /// From the handler's call to its return.
    pub duration: Duration,
    /// The size of the answer's body.
    pub body_bytes: usize,
}

impl fmt::Display for RequestLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {} {} {} {:.1}ms {}B",
            self.request_id,
            self.method.escape_debug(),
            self.path.escape_debug(),
            self.status,
            self.duration.as_secs_f64() * 1000.0,
            self.body_bytes,
        )
    }
}

/// Sends the log of this program to standard error: UTC time, level, message. The libraries' own lines are left
/// out, since the database client's hold the parameters of statements.
///
/// # Errors
/// If a logger is set already.
pub fn start(level: LevelFilter) -> Result<(), SetLoggerError> {
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .add_filter_allow_str("movies_api")
        .build();
    // A line is written whole: without the buffer each of its parts would be a system call.
    WriteLogger::init(level, config, LineWriter::new(stderr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_s_line_escapes_what_the_client_sent() {
        let line = RequestLine {
            request_id: "0123456789abcdef",
            method: "GET",
            path: "/a\n[INFO] forged\u{1b}[31m",
            status: 404,
            duration: Duration::from_micros(1540),
            body_bytes: 23,
        };
        assert_eq!(
            line.to_string(),
            r"0123456789abcdef GET /a\n[INFO] forged\u{1b}[31m 404 1.5ms 23B"
        );
    }
}
