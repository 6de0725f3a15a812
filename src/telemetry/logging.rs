//! The log: the line of each request, and the logger behind the `log` facade, which writes text or JSON to standard
//! error.
//!
//! The thread that logs a line formats it and appends it to a bounded queue; the thread `log` writes the queue to
//! standard error. A reader that has stopped, or a full disk, therefore delays no other thread. `main` holds a
//! [`DrainGuard`], since the thread ends with the process.
//!
//! Nothing secret is logged: of a request's target only the path, without the query, and control characters that a
//! client sent are escaped.
mod levels;
mod output;
mod queue;

use std::fmt::{self, Display};
use std::panic;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::{Serialize, Serializer};
use simplelog::{ConfigBuilder, WriteLogger};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use self::levels::Levels;
use self::queue::{LineCollector, LineQueue};

/// The target of request lines, which LOG_LEVEL calls `request`.
const REQUEST_TARGET: &str = "movies_api::request";

/// How long [`DrainGuard`] waits at most.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Time, level and message
    Text,
    /// One JSON object per line
    Json,
}

/// The log line of one request, written when its handler has returned.
#[derive(Serialize)]
pub struct RequestLine<'a> {
    /// The response's X-Request-Id: 16 hexadecimal digits, or the validated value that a trusted proxy sent.
    pub request_id: &'a str,
    /// The user whose valid access token the request carried.
    pub user_id: Option<i64>,
    /// As the client sent it, so possibly with control characters.
    pub method: &'a str,
    /// The target's path as the client sent it, without the query, which may hold a secret.
    pub path: &'a str,
    /// Name of the handler, or `unknown`.
    pub route: &'static str,
    /// Status code of the response.
    pub status: u16,
    /// Time from calling the handler to its return.
    #[serde(rename = "duration_ms", serialize_with = "serialize_milliseconds")]
    pub duration: Duration,
    /// Size of the response's body.
    #[serde(rename = "bytes")]
    pub body_bytes: usize,
    /// Timings in the database, for a slow request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<String>,
    /// The error behind a response with status 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

impl Display for RequestLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ", self.request_id)?;
        match self.user_id {
            Some(user_id) => write!(formatter, "{user_id} ")?,
            None => formatter.write_str("- ")?,
        }
        write!(
            formatter,
            "{} {} {} {:.1}ms {}B",
            self.method.escape_debug(),
            self.path.escape_debug(),
            self.status,
            to_milliseconds(self.duration),
            self.body_bytes,
        )?;
        if let Some(slow) = &self.slow {
            write!(formatter, " slow: {slow}")?;
        }
        if let Some(fault) = &self.fault {
            write!(formatter, " fault: {fault}")?;
        }
        Ok(())
    }
}

impl RequestLine<'_> {
    /// Logs the line at level `error` if the request failed, `warn` if it was slow, else `info`.
    pub fn log(&self) {
        let level = match (&self.fault, &self.slow) {
            (Some(_), _) => Level::Error,
            (None, Some(_)) => Level::Warn,
            (None, None) => Level::Info,
        };
        let metadata = Metadata::builder()
            .level(level)
            .target(REQUEST_TARGET)
            .build();
        if let Some(logger) = LOGGER.get()
            && logger.enabled(&metadata)
        {
            let message = format_args!("{} {} {}", self.method, self.path, self.status);
            logger.write(&metadata, message, Some(self));
        }
    }
}

fn to_milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn serialize_milliseconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // Rounded to microseconds.
    serializer.serialize_f64((to_milliseconds(*duration) * 1000.0).round() / 1000.0)
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

struct Logger {
    levels: Levels,
    format: Format,
    /// Adds time and level to a line. Its lock is held only while it formats.
    writer: Box<WriteLogger<LineCollector>>,
    queue: Arc<LineQueue>,
}

/// Starts the log: lines of this crate go to standard error, with UTC time and level, and so does the message of a
/// panic.
///
/// # Errors
/// If the process has a logger already, or the system refuses another thread.
pub fn start(levels: Levels, format: Format) -> anyhow::Result<()> {
    let mut config = ConfigBuilder::new();
    config
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off);
    if format == Format::Json {
        // The JSON object contains time and level.
        config.set_time_level(LevelFilter::Off);
        config.set_max_level(LevelFilter::Off);
    }
    log::set_max_level(levels.max());
    let logger = LOGGER.get_or_init(|| {
        let queue = LineQueue::new();
        let collector = LineCollector::new(Arc::clone(&queue));
        Logger {
            levels,
            format,
            writer: WriteLogger::new(LevelFilter::Trace, config.build(), collector),
            queue,
        }
    });
    log::set_logger(logger)?;
    panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    // Logged at any level, since the lost lines were at an enabled one.
    let report_loss = |lines| {
        let reason = "standard error was too slow, or writing to it failed";
        let message = format_args!("{lines} log lines were dropped before this one: {reason}");
        logger.log_unfiltered(Level::Warn, message);
    };
    let started = logger.queue.start_writer(report_loss);
    started.context("its thread cannot be started")
}

/// Reports why the program failed, at any level: as a JSON line if the log's format is JSON, else as a line of plain
/// text.
pub fn report_failure(reason: fmt::Arguments) {
    match LOGGER.get() {
        Some(logger) if logger.format == Format::Json => {
            logger.log_unfiltered(Level::Error, reason);
        }
        Some(logger) => logger
            .queue
            .push(format!("movies-api: {reason}\n").as_bytes()),
        None => eprintln!("movies-api: {reason}"),
    }
}

/// When dropped, waits until all lines logged so far are written: held by `main`, which may return or panic.
pub struct DrainGuard;

impl Drop for DrainGuard {
    fn drop(&mut self) {
        log::logger().flush();
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.levels.allows(metadata.level(), metadata.target())
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            self.write(record.metadata(), *record.args(), None);
        }
    }

    fn flush(&self) {
        self.queue.drain(DRAIN_TIMEOUT);
    }
}

impl Logger {
    /// Logs a message whatever the levels are.
    fn log_unfiltered(&self, level: Level, message: fmt::Arguments) {
        let target = module_path!();
        let metadata = Metadata::builder().level(level).target(target).build();
        self.write(&metadata, message, None);
    }

    /// Writes a line with this message, or the line of a request, which contains the message as JSON only.
    fn write(&self, metadata: &Metadata, message: fmt::Arguments, request: Option<&RequestLine>) {
        let line = match (self.format, request) {
            (Format::Text, None) => format_text(message),
            (Format::Text, Some(request)) => format_text(request),
            (Format::Json, _) => format_json(metadata, message, request),
        };
        let mut record = Record::builder();
        record.metadata(metadata.clone());
        self.writer
            .log(&record.args(format_args!("{line}")).build());
    }
}

/// Escapes the message's control characters, so that a client can neither forge a line nor control a terminal.
fn format_text(message: impl Display) -> String {
    let message = message.to_string();
    if !message.contains(char::is_control) {
        return message;
    }
    let mut line = String::with_capacity(message.len() + 16);
    for character in message.chars() {
        match character.is_control() {
            true => line.extend(character.escape_debug()),
            false => line.push(character),
        }
    }
    line
}

#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    level: &'static str,
    target: &'a str,
    message: fmt::Arguments<'a>,
    #[serde(flatten)]
    request: Option<&'a RequestLine<'a>>,
}

fn format_json(
    metadata: &Metadata,
    message: fmt::Arguments,
    request: Option<&RequestLine>,
) -> String {
    let line = JsonLine {
        // RFC 3339 can express every time of the years 0 to 9999.
        time: OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default(),
        level: metadata.level().as_str(),
        target: metadata.target(),
        message,
        request,
    };
    // Serializing strings and numbers to a string cannot fail.
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forged_line() -> RequestLine<'static> {
        RequestLine {
            request_id: "0123456789abcdef",
            user_id: Some(7),
            method: "GET",
            path: "/a\n[INFO] \"forged\u{1b}[31m",
            route: "unknown",
            status: 404,
            duration: Duration::from_micros(1540),
            body_bytes: 23,
            slow: None,
            fault: None,
        }
    }

    #[test]
    fn text_request_line_escapes_what_the_client_sent() {
        let line = forged_line();
        assert_eq!(
            format_text(&line),
            r#"0123456789abcdef 7 GET /a\n[INFO] \"forged\u{1b}[31m 404 1.5ms 23B"#
        );
        let anonymous = RequestLine {
            user_id: None,
            path: "/",
            fault: Some("x\r\ny".to_owned()),
            slow: Some("z".to_owned()),
            ..line
        };
        assert_eq!(
            format_text(&anonymous),
            r"0123456789abcdef - GET / 404 1.5ms 23B slow: z fault: x\r\ny"
        );
    }

    #[test]
    fn json_request_line_is_one_object_with_a_field_per_value() {
        let metadata = Metadata::builder()
            .level(Level::Warn)
            .target(REQUEST_TARGET)
            .build();
        let line = format_json(&metadata, format_args!("a\nb\"{}", 1), Some(&forged_line()));
        let (time, rest) = line.split_once("Z\",").unwrap();
        assert!(time.starts_with(r#"{"time":"2"#), "{line}");
        assert_eq!(
            rest,
            r#""level":"WARN","target":"movies_api::request","message":"a\nb\"1","request_id":"0123456789abcdef","user_id":7,"method":"GET","path":"/a\n[INFO] \"forged\u001b[31m","route":"unknown","status":404,"duration_ms":1.54,"bytes":23}"#
        );
    }
}
