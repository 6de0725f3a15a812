//! One connection: its prepared statements, and whether it is still good.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postgres::error::{DbError, Severity};
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{Client, Row, Statement};
use r2d2::ManageConnection;

use super::Sql;
use super::database::{Database, Session, Unreachable};
use crate::{metrics, trace};

/// A connection that rested longer is looked at before it is used: what the server sent meanwhile, such as its
/// farewell, is read without asking anything.
const RESTED: Duration = Duration::from_secs(1);

/// A client with the statements that were prepared on it.
pub struct Connection {
    client: Client,
    /// Whether a statement that was prepared is still there for the next request.
    keeps_state: bool,
    prepared: HashMap<&'static str, Statement>,
    born: Instant,
    used: Instant,
    is_trusted: bool,
}

/// A statement's failure, and whether the server may have got the statement.
pub struct Lost {
    pub error: postgres::Error,
    pub was_sent: bool,
}

impl Connection {
    /// The rows of the statement.
    pub fn query(
        &mut self,
        sql: &Sql,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Lost> {
        let began = Instant::now();
        let rows = if self.keeps_state {
            let statement = self
                .prepare(sql)
                .map_err(|error| self.judge(error, false))?;
            self.client.query(&statement, parameters)
        } else {
            let types = sql.types.iter().cloned();
            let typed: Vec<_> = parameters.iter().copied().zip(types).collect();
            self.client.query_typed(sql.text, &typed)
        };
        self.used = Instant::now();
        let duration = self.used.duration_since(began);
        metrics::count_statement(sql.name, duration);
        trace::note_statement(sql.name, duration);
        rows.map_err(|error| self.judge(error, true))
    }

    fn prepare(&mut self, sql: &Sql) -> Result<Statement, postgres::Error> {
        if let Some(statement) = self.prepared.get(sql.name) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare_typed(sql.text, sql.types)?;
        self.prepared.insert(sql.name, statement.clone());
        Ok(statement)
    }

    /// An error that the server called fatal is its last word on this connection.
    fn judge(&mut self, error: postgres::Error, was_sent: bool) -> Lost {
        let severity = error.as_db_error().and_then(DbError::parsed_severity);
        let is_last_word = matches!(severity, Some(Severity::Fatal | Severity::Panic));
        self.is_trusted &= !is_last_word && !self.client.is_closed();
        Lost { error, was_sent }
    }

    /// Whether the connection is known to be lost.
    pub fn is_lost(&self) -> bool {
        !self.is_trusted
    }

    /// Whether it may be used: it was made after the last loss, and the server did not end it while it rested. What
    /// is there already is read, and nothing is waited for.
    pub fn is_trusted(&mut self, distrusted_until: Instant) -> bool {
        let ended_at_rest = self.used.elapsed() > RESTED
            && (self.client.notifications().iter().next().is_err() || self.client.is_closed());
        self.is_trusted = self.born >= distrusted_until && !ended_at_rest;
        self.is_trusted
    }
}

/// Makes the pool's connections.
pub struct Manager {
    database: Database,
    settings: String,
    is_reachable: Arc<AtomicBool>,
    is_pooler_told: AtomicBool,
}

impl Manager {
    /// Connections to this database with these settings; whether the last one could be made is kept in `is_reachable`.
    pub fn new(database: Database, settings: String, is_reachable: Arc<AtomicBool>) -> Manager {
        Manager {
            database,
            settings,
            is_reachable,
            is_pooler_told: AtomicBool::new(false),
        }
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = Unreachable;

    fn connect(&self) -> Result<Connection, Unreachable> {
        let session = self.database.connect(&self.settings);
        self.is_reachable.store(session.is_ok(), Ordering::Relaxed);
        let Session {
            client,
            keeps_state,
        } = session?;
        if !keeps_state && !self.is_pooler_told.swap(true, Ordering::Relaxed) {
            log::info!(
                "the database is behind a pooler that keeps nothing between transactions: statements are not \
                 prepared, and what bounds them is the role's own statement_timeout"
            );
        }
        let now = Instant::now();
        Ok(Connection {
            client,
            keeps_state,
            prepared: HashMap::new(),
            born: now,
            used: now,
            is_trusted: true,
        })
    }

    /// Not asked: a broken connection is noticed when it is used.
    fn is_valid(&self, _: &mut Connection) -> Result<(), Unreachable> {
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_trusted || connection.client.is_closed()
    }
}
