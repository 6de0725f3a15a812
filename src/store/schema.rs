//! The database's schema: waits for the database, applies the migrations that it lacks, looks at what it can do.
use std::time::{Duration, Instant};

use postgres::Client;

use super::error::{classify, describe};
use super::{Database, Error, Sql, sql};

mod migrations {
    refinery::embed_migrations!("sql/migrations");
}

const LOCK_MIGRATIONS: Sql = sql!("schema/lock_migrations", []);
const DESCRIBE_LETTERS: Sql = sql!("schema/describe_letters", []);
const CREATE_SEARCH_INDEX: Sql = sql!("schema/create_search_index", []);

/// Applies the migrations that this database lacks, under a lock: the library takes none, and several instances may
/// start at once. The lock is a transaction's, on a connection of its own: so it goes with either, and a pooler between
/// here and the database keeps none behind.
pub fn migrate(database: &Database, start_deadline: Duration) -> Result<(), Error> {
    let failed = |reason: String| Error::Unavailable(reason);
    let mut client = connect_within(database, start_deadline)?;
    let mut holder = connect_within(database, start_deadline)?;
    let mut lock = holder
        .transaction()
        .map_err(|error| classify(&LOCK_MIGRATIONS, &error))?;
    lock.batch_execute(LOCK_MIGRATIONS.text)
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
    let rows = client.query_typed(DESCRIBE_LETTERS.text, &[]);
    let rows = rows.map_err(|error| classify(&DESCRIBE_LETTERS, &error))?;
    let knows_letters = rows.first().map(|row| row.try_get(0));
    if !matches!(knows_letters, Some(Ok(true))) {
        log::warn!(
            "the database's locale knows only ASCII letters: searches will mind the case of all others \
             (create the database with a UTF-8 locale such as C.UTF-8)"
        );
    }
    Ok(())
}

fn connect_within(database: &Database, start_deadline: Duration) -> Result<Client, Error> {
    let deadline = Instant::now() + start_deadline;
    loop {
        match database.connect("") {
            Ok(session) => return Ok(session.client),
            // A server that is starting, or not there yet, may come; a refusal of this user will stay.
            Err(error) if Instant::now() < deadline && !error.is_refusal => {
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(error) => return Err(Error::Unavailable(error.to_string())),
        }
    }
}
