//! The database's schema: waits for the database, applies the migrations that it lacks, looks at what it can do.
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::{Client, Config, NoTls};

use super::error::{classify, describe};
use super::{Error, Sql, sql};

mod migrations {
    refinery::embed_migrations!("sql/migrations");
}

const LOCK_MIGRATIONS: Sql = sql!("schema/lock_migrations");
const DESCRIBE_LETTERS: Sql = sql!("schema/describe_letters");
const CREATE_SEARCH_INDEX: Sql = sql!("schema/create_search_index");

/// Applies the migrations that this database lacks, on a connection of its own, under a lock: the library takes
/// none, and several instances may start at once. The lock is the session's, so it goes with the connection.
pub fn migrate(database: &Config, start_deadline: Duration) -> Result<(), Error> {
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
    if let Err(error) = client.batch_execute(CREATE_SEARCH_INDEX.text) {
        let reason = describe(&error);
        log::warn!(
            "searches go without an index: {reason} (see sql/schema/create_search_index.sql)"
        );
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
