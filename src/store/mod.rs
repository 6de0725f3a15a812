//! The database: pool, connections, migrations at start, error classes. The only room, with its two neighbours,
//! that names SQL files or PostgreSQL's types.
pub mod movies;
pub mod users;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::types::ToSql;
use postgres::{Client, Config, NoTls, Row, Statement};
use r2d2::{ManageConnection, Pool};
use r2d2_postgres::PostgresConnectionManager;

mod migrations {
    refinery::embed_migrations!("sql/migrations");
}

/// One statement: its name in the log, and its text, compiled in from the file of that name.
struct Sql {
    name: &'static str,
    text: &'static str,
}

/// The statement in `sql/NAME.sql`.
macro_rules! sql {
    ($name:literal) => {
        $crate::store::Sql {
            name: $name,
            text: include_str!(concat!("../../sql/", $name, ".sql")),
        }
    };
}
use sql;

const LOCK_MIGRATIONS: Sql = sql!("schema/lock_migrations");
const DESCRIBE_LETTERS: Sql = sql!("schema/describe_letters");
const READY: Sql = sql!("probes/ready");

/// What the database could not or would not do.
#[derive(Debug, thiserror::Error)]
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
    /// The database is away, too busy, or took too long; the same request may succeed later.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// A fault of ours.
    #[error("statement {statement}: {reason}")]
    Fault {
        /// The statement's name.
        statement: &'static str,
        /// The database's or the client's own words.
        reason: String,
    },
}

/// Where the database is and how long it is waited for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address, user, password and database.
    pub database: Config,
    /// Connections at the most.
    pub pool_size: u32,
    /// How long a request waits for a free connection.
    pub checkout_deadline: Duration,
    /// How long a statement may run.
    pub statement_deadline: Duration,
    /// How long a start waits for a database that is not there yet.
    pub start_deadline: Duration,
}

/// The pool of connections, and whether the database answered last time.
pub struct Store {
    pool: Pool<Manager>,
    is_away: AtomicBool,
}

impl Store {
    /// Waits for the database, brings its schema up to date and fills the pool.
    ///
    /// # Errors
    /// If the database does not answer in time, refuses this user, or a migration fails.
    pub fn open(mut options: Options) -> Result<Store, Error> {
        let database = &mut options.database;
        if database.get_connect_timeout().is_none() {
            database.connect_timeout(Duration::from_secs(3));
        }
        if database.get_application_name().is_none() {
            database.application_name("movies-api");
        }
        migrate(database, options.start_deadline)?;
        let deadline = options.statement_deadline.as_millis();
        let own = format!("-c statement_timeout={deadline}");
        let given = database.get_options().map(|given| format!("{own} {given}"));
        database.options(&given.unwrap_or(own));
        let pool = Pool::builder()
            .max_size(options.pool_size)
            .connection_timeout(options.checkout_deadline)
            // A broken connection is noticed when it is used; asking first would double the round trips.
            .test_on_check_out(false)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(Manager(PostgresConnectionManager::new(
                options.database,
                NoTls,
            )));
        Ok(Store {
            pool,
            is_away: AtomicBool::new(false),
        })
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is none in time.
    pub fn check_ready(&self) -> Result<(), Error> {
        self.query(&READY, &[]).map(|_| ())
    }

    /// The rows of one statement, prepared once per connection.
    fn query(&self, sql: &Sql, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let answer = self
            .pool
            .get()
            .map_err(|error| Error::Unavailable(error.to_string()))
            .and_then(|mut connection| {
                let rows = connection.query(sql, parameters);
                rows.map_err(|error| classify(sql, &error))
            });
        self.note_outage(answer.as_ref().err());
        answer
    }

    /// The only row of a statement that always answers with one.
    fn query_one(&self, sql: &Sql, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
        let row = self.query(sql, parameters)?.into_iter().next();
        row.ok_or_else(|| sql.fault("it answered without a row"))
    }

    /// An outage is logged once when it begins and once when it ends, not with every request.
    fn note_outage(&self, error: Option<&Error>) {
        let is_away = matches!(error, Some(Error::Unavailable(_)));
        if self.is_away.swap(is_away, Ordering::Relaxed) == is_away {
            return;
        }
        match error {
            Some(error) => log::warn!("{error}"),
            None => log::info!("the database answers again"),
        }
    }
}

impl Sql {
    fn fault(&self, reason: impl ToString) -> Error {
        Error::Fault {
            statement: self.name,
            reason: reason.to_string(),
        }
    }
}

/// A client with the statements that were prepared on it.
struct Connection {
    client: Client,
    prepared: HashMap<&'static str, Statement>,
}

impl Connection {
    fn query(
        &mut self,
        sql: &Sql,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, postgres::Error> {
        let statement = match self.prepared.get(sql.name) {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.client.prepare(sql.text)?;
                self.prepared.insert(sql.name, statement.clone());
                statement
            }
        };
        self.client.query(&statement, parameters)
    }
}

/// Makes the pool's connections.
struct Manager(PostgresConnectionManager<NoTls>);

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = postgres::Error;

    fn connect(&self) -> Result<Connection, postgres::Error> {
        Ok(Connection {
            client: self.0.connect()?,
            prepared: HashMap::new(),
        })
    }

    fn is_valid(&self, connection: &mut Connection) -> Result<(), postgres::Error> {
        self.0.is_valid(&mut connection.client)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        self.0.has_broken(&mut connection.client)
    }
}

/// Applies the migrations that this database lacks, on a connection of its own, under a lock: the library takes
/// none, and several instances may start at once. The lock is the session's, so it goes with the connection.
fn migrate(database: &Config, start_deadline: Duration) -> Result<(), Error> {
    let failed = |reason: String| Error::Unavailable(reason);
    let mut client = connect_within(database, start_deadline)?;
    client
        .batch_execute(LOCK_MIGRATIONS.text)
        .map_err(|error| classify(&LOCK_MIGRATIONS, &error))?;
    let report = migrations::migrations::runner().run(&mut client);
    let report = report.map_err(|error| failed(format!("migrations: {error}")))?;
    for migration in report.applied_migrations() {
        log::info!("migration {migration} applied");
    }
    let row = client.query_one(DESCRIBE_LETTERS.text, &[]);
    let knows_letters = row.and_then(|row| row.try_get::<_, bool>(0));
    if !knows_letters.map_err(|error| classify(&DESCRIBE_LETTERS, &error))? {
        log::warn!(
            "the database's locale knows only ASCII letters: searches will mind the case of all others \
             (create the database with a UTF-8 locale such as C.UTF-8)"
        );
    }
    Ok(())
}

fn connect_within(database: &Config, start_deadline: Duration) -> Result<Client, Error> {
    let deadline = Instant::now() + start_deadline;
    loop {
        match database.connect(NoTls) {
            Ok(client) => return Ok(client),
            // A server that is starting, or not there yet, may come; a refusal of this user will stay.
            Err(error)
                if Instant::now() < deadline
                    && error
                        .code()
                        .is_none_or(|code| *code == SqlState::CANNOT_CONNECT_NOW) =>
            {
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(error) => return Err(Error::Unavailable(describe(&error))),
        }
    }
}

/// An error of the client as one of ours, by its SQLSTATE where the server gave one.
fn classify(sql: &Sql, error: &postgres::Error) -> Error {
    if let Some(refusal) = error.as_db_error() {
        let code = refusal.code().code();
        return match (refusal.constraint(), code.get(..2)) {
            (Some(constraint), Some("23")) => Error::Conflict(constraint.to_owned()),
            // 08 connection, 25006 read-only, 28 no such user, 3D no such database, 40 rolled back, 53 resources,
            // 55P03 locked, 57 shut down or cancelled by a deadline, 58 system error
            (_, Some("08" | "28" | "3D" | "40" | "53" | "57" | "58")) => {
                Error::Unavailable(describe(error))
            }
            _ if ["25006", "55P03"].contains(&code) => Error::Unavailable(describe(error)),
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

/// The error with its cause, which the client's own text leaves out.
fn describe(error: &postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
