//! Database errors, and which of the client library's errors is which.
use super::Sql;
use super::coalescer::{BatchFailure, TimedOut};

/// Why the database did not do what was requested.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The requesting user does not exist.
    #[error("the user does not exist")]
    UnknownUser,
    /// The requesting user is deactivated.
    #[error("the user is inactive")]
    InactiveUser,
    /// The token was issued before the user's password was changed, or the user was signed out.
    #[error("the token is revoked")]
    RevokedToken,
    /// The refresh token was signed out.
    #[error("the token is blacklisted")]
    BlacklistedToken,
    /// No movie has this id.
    #[error("no movie has this id")]
    MissingMovie,
    /// The write violates a constraint of the schema, given by its name.
    #[error("constraint {0}")]
    Conflict(String),
    /// The database rolled the statement back for a reason of its own, such as a deadlock.
    #[error("statement rolled back: {0}")]
    RolledBack(String),
    /// Another transaction held a lock for longer than the lock timeout. Nothing was changed.
    #[error("lock not available: {0}")]
    Blocked(String),
    /// The database did not respond to a write in time, or the connection was lost. The write may have been applied; the
    /// same request may succeed later.
    #[error("database unavailable: {0}; the change may have been stored")]
    Unconfirmed(String),
    /// The database cannot be reached, is overloaded, or did not respond in time. The same request may succeed later.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// The schema does not fit this version of the program.
    #[error("{0}")]
    Schema(String),
    /// A mistake in this program, or a schema that was changed by hand.
    #[error("statement {statement}: {reason}")]
    Fault {
        /// The statement's name, see sql/.
        statement: &'static str,
        /// The message of the server, the client library, or of the decoding here.
        reason: String,
    },
}

impl Error {
    /// Whether the database is unavailable, whatever the statement.
    pub fn is_outage(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::Unconfirmed(_))
    }
}

impl BatchFailure for Error {
    fn may_concern_one_input(&self) -> bool {
        matches!(
            self,
            Error::Conflict(_) | Error::RolledBack(_) | Error::Blocked(_) | Error::Fault { .. }
        )
    }

    fn is_blocked(&self) -> bool {
        matches!(self, Error::Blocked(_))
    }
}

impl From<TimedOut> for Error {
    fn from(_: TimedOut) -> Error {
        Error::Unavailable("no response in time".to_owned())
    }
}

/// Converts an error of the client library, by its SQLSTATE if the server sent one.
pub fn classify(sql: &Sql, error: &postgres::Error) -> Error {
    let reason = describe(error);
    let Some(server_error) = error.as_db_error() else {
        let source = std::error::Error::source(error);
        let is_io_error = source.is_some_and(|source| source.is::<std::io::Error>());
        return match error.is_closed() || is_io_error {
            true => Error::Unavailable(reason),
            false => sql.fault(reason),
        };
    };
    let code = server_error.code().code();
    match (code.get(..2).unwrap_or_default(), server_error.constraint()) {
        ("23", Some(constraint)) => Error::Conflict(constraint.to_owned()),
        ("40", _) => Error::RolledBack(reason),
        // 08 connection, 25006 read-only, 28 no such user, 3D no such database, 53 resources,
        // 57 shutdown or statement timeout, 58 system error
        ("08" | "28" | "3D" | "53" | "57" | "58", _) => Error::Unavailable(reason),
        _ if code == "25006" => Error::Unavailable(reason),
        _ if code == "55P03" => Error::Blocked(reason),
        _ => sql.fault(reason),
    }
}

/// Returns the error's text with its cause, which the client library's own text omits. Of a server's error the detail is
/// omitted: it quotes rows, and a row may contain a password hash.
pub fn describe(error: &postgres::Error) -> String {
    if let Some(server_error) = error.as_db_error() {
        let code = server_error.code().code();
        return format!(
            "{}: {} ({code})",
            server_error.severity(),
            server_error.message()
        );
    }
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
