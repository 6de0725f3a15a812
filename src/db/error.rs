//! What the database could not or would not do, and which of the client's errors means what.
use super::Sql;
use super::coalescer::{Failure, TimedOut};

/// What the database could not or would not do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The user who asks does not exist.
    #[error("the user who asks does not exist")]
    UnknownUser,
    /// The user who asks was deactivated.
    #[error("the user who asks is inactive")]
    InactiveUser,
    /// No movie has this id.
    #[error("no movie has this id")]
    MissingMovie,
    /// The movie is another's, and only its creator may do this.
    #[error("the movie is another's")]
    ForeignMovie,
    /// A constraint of the schema, given by its name, refused the write.
    #[error("constraint {0}")]
    Conflict(String),
    /// The database undid the statement for reasons of its own, such as a deadlock.
    #[error("statement rolled back: {0}")]
    RolledBack(String),
    /// Another transaction held a lock for too long; nothing was changed.
    #[error("lock not available: {0}")]
    Blocked(String),
    /// The database was sent a change and did not answer in time; the same request may succeed later.
    #[error("database unavailable: {0}; the change may have been stored")]
    Unconfirmed(String),
    /// The database is away, too busy, or took too long; the same request may succeed later.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// The schema is not the one that this program needs.
    #[error("{0}")]
    Schema(String),
    /// A fault of ours.
    #[error("statement {statement}: {reason}")]
    Fault {
        /// The statement's name.
        statement: &'static str,
        /// The database's or the client's own words.
        reason: String,
    },
}

impl Error {
    /// Whether the database is to blame, and not what was asked of it.
    pub fn is_outage(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::Unconfirmed(_))
    }
}

impl Failure for Error {
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
        Error::Unavailable("no answer in time".to_owned())
    }
}

/// An error of the client as one of ours, by its SQLSTATE where the server gave one.
pub fn classify(sql: &Sql, error: &postgres::Error) -> Error {
    if let Some(refusal) = error.as_db_error() {
        let code = refusal.code().code();
        return match (refusal.constraint(), code.get(..2)) {
            (Some(constraint), Some("23")) => Error::Conflict(constraint.to_owned()),
            (_, Some("40")) => Error::RolledBack(describe(error)),
            // 08 connection, 25006 read-only, 28 no such user, 3D no such database, 53 resources,
            // 57 shut down or cancelled by a deadline, 58 system error
            (_, Some("08" | "28" | "3D" | "53" | "57" | "58")) => {
                Error::Unavailable(describe(error))
            }
            _ if code == "55P03" => Error::Blocked(describe(error)),
            _ if code == "25006" => Error::Unavailable(describe(error)),
            _ => sql.fault(describe(error)),
        };
    }
    let source = std::error::Error::source(error);
    let is_lost = error.is_closed() || source.is_some_and(|source| source.is::<std::io::Error>());
    if is_lost {
        Error::Unavailable(describe(error))
    } else {
        sql.fault(describe(error))
    }
}

/// The error with its cause, which the client's own text leaves out. Of the server's words its details are left out: they
/// quote rows, and a row may hold a password's hash.
pub fn describe(error: &postgres::Error) -> String {
    if let Some(refusal) = error.as_db_error() {
        let code = refusal.code().code();
        return format!("{}: {} ({code})", refusal.severity(), refusal.message());
    }
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
