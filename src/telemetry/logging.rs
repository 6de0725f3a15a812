//! The log: one struct for a request's line, and the writer behind the `log` facade, in text or in JSON. Nothing secret
//! passes here: of a request's target only the path is kept, and what a client sent is escaped.
//!
//! The thread that logs a line formats and queues it; a thread of the log's own writes it to standard error, so that a
//! reader that has stopped, or a full disk, holds up nobody else. Whoever ends the process calls [`drain`] first.
mod levels;
mod output;
mod queue;

use std::fmt::{self, Display, Write};
use std::io;
use std::panic;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};
use serde::{Serialize, Serializer};
use simplelog::{ConfigBuilder, WriteLogger};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use self::levels::Levels;
use self::queue::{LineCollector, LineQueue};

/// The target of the request lines, so that they can be told from the rest.
const REQUESTS: &str = "movies_api::request";

/// How long the end of the process waits for the log to be written.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Time, level and message
    Text,
    /// One JSON object a line
    Json,
}

/// What is logged of each request, once it is answered.
#[derive(Serialize)]
pub struct RequestLine<'a> {
    /// The answer's X-Request-Id: sixteen hexadecimal digits, or what a trusted proxy gave, judged before.
    pub request_id: &'a str,
    /// Whose access token it carried, if it carried a good one.
    pub user_id: Option<i64>,
    /// As the client sent it.
    pub method: &'a str,
    /// The target's path without its query, which may hold a secret.
    pub path: &'a str,
    /// The handler's name.
    pub route: &'static str,
    /// The answer's status code.
    pub status: u16,
    /// From the handler's call to its return.
    #[serde(rename = "duration_ms", serialize_with = "write_milliseconds")]
    pub duration: Duration,
    /// The size of the answer's body.
    #[serde(rename = "bytes")]
    pub body_bytes: usize,
    /// Where the time went, if it took too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<String>,
    /// Why it was answered with 500, if it was.
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
    /// Logs it: a fault as an error, a slow one as a warning.
    pub fn log(&self) {
        let level = match (&self.fault, &self.slow) {
            (Some(_), _) => Level::Error,
            (None, Some(_)) => Level::Warn,
            (None, None) => Level::Info,
        };
        let metadata = Metadata::builder().level(level).target(REQUESTS).build();
        let Some(logger) = LOGGER.get().filter(|logger| logger.enabled(&metadata)) else {
            return;
        };
        let line = match logger.format {
            Format::Text => write_text(self),
            Format::Json => {
                let message = format_args!("{} {} {}", self.method, self.path, self.status);
                write_json(&metadata, message, Some(self))
            }
        };
        logger.write(&metadata, &line);
    }
}

fn to_milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn write_milliseconds<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    // To a microsecond: more digits say nothing.
    to.serialize_f64((to_milliseconds(*duration) * 1000.0).round() / 1000.0)
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

struct Logger {
    levels: Levels,
    format: Format,
    /// Formats lines, under a lock that is held for no more than that.
    writer: Box<WriteLogger<LineCollector>>,
    queue: Arc<LineQueue>,
}

/// Why the log cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is a logger already.
    #[error(transparent)]
    LoggerIsSet(#[from] SetLoggerError),
    /// The thread that writes it cannot be started.
    #[error("starting its thread")]
    Thread(#[from] io::Error),
}

/// Sends the log of this program to standard error, UTC time and level before each message. A panic is a line of it.
///
/// # Errors
/// If a logger is set already, or the system has no thread left.
pub fn start(levels: Levels, format: Format) -> Result<(), StartError> {
    let mut config = ConfigBuilder::new();
    config
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off);
    if format == Format::Json {
        // They are in the object.
        config.set_time_level(LevelFilter::Off);
        config.set_max_level(LevelFilter::Off);
    }
    log::set_max_level(levels.most());
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
    // Whatever the levels: the lines that were lost were to be logged.
    let tell_loss = |lines| {
        let reason = "standard error took them too slowly, or failed";
        let message = format_args!("{lines} log lines were dropped before this one: {reason}");
        logger.log_unfiltered(Level::Warn, message);
    };
    logger.queue.start_writer(tell_loss)?;
    Ok(())
}

/// Logs why the program ends: in the log's form if that is to be read by programs, else as a plain line for whoever
/// started it.
pub fn tell_end(reason: fmt::Arguments) {
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

/// Drains the log when it is dropped, which is when `main` ends, by a panic too.
pub struct DrainGuard;

impl Drop for DrainGuard {
    fn drop(&mut self) {
        drain();
    }
}

/// Waits until all lines so far are written, for a second at most: to be called before the process ends.
pub fn drain() {
    if let Some(logger) = LOGGER.get() {
        logger.flush();
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.levels.admit(metadata.level(), metadata.target())
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            self.write_message(record.metadata(), *record.args());
        }
    }

    fn flush(&self) {
        self.queue.drain(DRAIN_TIMEOUT);
    }
}

impl Logger {
    /// A line about the log itself.
    fn log_unfiltered(&self, level: Level, message: fmt::Arguments) {
        let target = module_path!();
        let metadata = Metadata::builder().level(level).target(target).build();
        self.write_message(&metadata, message);
    }

    fn write_message(&self, metadata: &Metadata, message: fmt::Arguments) {
        let line = match self.format {
            Format::Text => write_text(message),
            Format::Json => write_json(metadata, message, None),
        };
        self.write(metadata, &line);
    }

    fn write(&self, metadata: &Metadata, line: &str) {
        let mut record = Record::builder();
        record.metadata(metadata.clone());
        self.writer
            .log(&record.args(format_args!("{line}")).build());
    }
}

/// The message with its control characters written out, so that nothing forges a line or moves a cursor.
fn write_text(message: impl Display) -> String {
    let message = message.to_string();
    if !message.contains(char::is_control) {
        return message;
    }
    let mut line = String::with_capacity(message.len() + 16);
    for character in message.chars() {
        // Writing to a String does not fail.
        let _ = match character.is_control() {
            true => write!(line, "{}", character.escape_debug()),
            false => line.write_char(character),
        };
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

fn write_json(
    metadata: &Metadata,
    message: fmt::Arguments,
    request: Option<&RequestLine>,
) -> String {
    let line = JsonLine {
        // A time of these years can be written.
        time: OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default(),
        level: metadata.level().as_str(),
        target: metadata.target(),
        message,
        request,
    };
    // Text and numbers alone can be written, too.
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
    fn a_request_s_line_of_text_escapes_what_the_client_sent() {
        let line = forged_line();
        assert_eq!(
            write_text(&line),
            r#"0123456789abcdef 7 GET /a\n[INFO] \"forged\u{1b}[31m 404 1.5ms 23B"#
        );
        let nobody_s = RequestLine {
            user_id: None,
            path: "/",
            fault: Some("x\r\ny".to_owned()),
            slow: Some("z".to_owned()),
            ..line
        };
        assert_eq!(
            write_text(&nobody_s),
            r"0123456789abcdef - GET / 404 1.5ms 23B slow: z fault: x\r\ny"
        );
    }

    #[test]
    fn a_request_s_line_of_json_is_one_object_with_a_field_for_each_figure() {
        let metadata = Metadata::builder()
            .level(Level::Warn)
            .target(REQUESTS)
            .build();
        let line = write_json(&metadata, format_args!("a\nb\"{}", 1), Some(&forged_line()));
        let (time, rest) = line.split_once("Z\",").unwrap();
        assert!(time.starts_with(r#"{"time":"2"#), "{line}");
        assert_eq!(
            rest,
            r#""level":"WARN","target":"movies_api::request","message":"a\nb\"1","request_id":"0123456789abcdef","user_id":7,"method":"GET","path":"/a\n[INFO] \"forged\u001b[31m","route":"unknown","status":404,"duration_ms":1.54,"bytes":23}"#
        );
    }
}
