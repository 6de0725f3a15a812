//! The databases that are measured: the service's own migrations make them, and this module fills them with users and
//! movies and cleans up between measurements.
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use postgres::{Client, Config, NoTls};

use crate::server::{Server, service_binary};
use crate::token::Key;

pub const SECRET_KEY: &str = "a-key-of-the-benchmark-alone-0123456789";

const USERS: i64 = 1000;
const MOVIES: i64 = 100_000;
/// Movies in the short list that a long one is compared with: as many as in each of the equal lists.
pub const SHORT_LIST: i64 = 100;

/// Files of the write-ahead log that exist before the first measurement: more than one measurement fills.
const WAL_FILES: usize = 64;

/// A title is one word of each list and six hexadecimal digits.
const FIRST_WORDS: &[&str] = &[
    "The", "A", "Last", "First", "Night", "Lost", "Silent", "Red", "Dark", "Golden",
];
const SECOND_WORDS: &[&str] = &[
    "River", "Road", "Heat", "Garden", "Summer", "Paper", "Stranger", "Song", "Letter", "Game",
];

/// A database with users 1 to `users` and movies 1 to `movies`.
pub struct Database {
    pub url: String,
    pub users: i64,
    pub movies: i64,
    /// A file with one access token per line, in the order of the users' ids.
    pub tokens: PathBuf,
    client: Client,
}

impl Database {
    /// Creates a database with 100 movies for each of 1,000 users: user u has the movies u, u + 1000, u + 2000, ...
    ///
    /// The service at `binary` applies the migrations.
    pub fn with_equal_lists(name: &str, binary: &Path) -> anyhow::Result<Database> {
        let mut database = Database::create(name, binary, MOVIES)?;
        database.add_movies(1, MOVIES, None)?;
        database.tidy()?;
        Ok(database)
    }

    /// Creates a database in which user 1 has 30 % of the movies, user 2 has 100, and the other users have the rest.
    pub fn with_long_list(movies: i64) -> anyhow::Result<Database> {
        let mut database = Database::create("bench", &service_binary()?, movies)?;
        database.add_movies(1, movies, Some(movies / SHORT_LIST))?;
        database.tidy()?;
        Ok(database)
    }

    /// Creates a database with users and without movies.
    fn create(name: &str, binary: &Path, movies: i64) -> anyhow::Result<Database> {
        let maintenance =
            std::env::var("TEST_DATABASE_URL").context("TEST_DATABASE_URL is not set")?;
        Config::from_str(&maintenance)?
            .connect(NoTls)?
            .batch_execute(&format!("create database {name}"))?;
        let url = format!("{maintenance} dbname={name}");
        // The service applies its migrations before it accepts connections.
        drop(Server::start_binary("movies-api", binary, &url)?);
        let mut client = Config::from_str(&url)?.connect(NoTls)?;
        client.batch_execute("create extension if not exists pg_stat_statements")?;
        client.execute(include_str!("../sql/seed_users.sql"), &[&USERS])?;
        let mut database = Database {
            url,
            users: USERS,
            movies,
            tokens: write_tokens(name)?,
            client,
        };
        database.make_wal_files()?;
        Ok(database)
    }

    /// Adds the movies with the ids `first..=last`; `short_list_step` is explained in seed_movies.sql.
    fn add_movies(
        &mut self,
        first: i64,
        last: i64,
        short_list_step: Option<i64>,
    ) -> anyhow::Result<()> {
        self.client.execute(
            include_str!("../sql/seed_movies.sql"),
            &[
                &first,
                &last,
                &self.users,
                &short_list_step,
                &FIRST_WORDS,
                &SECOND_WORDS,
            ],
        )?;
        self.client.execute(
            "select setval(pg_get_serial_sequence('movies', 'id'), $1)",
            &[&last],
        )?;
        Ok(())
    }

    /// Adds `count` movies for a measurement to delete, and returns the id of the first.
    pub fn add_deletable_movies(&mut self, count: i64) -> anyhow::Result<i64> {
        let next = "select nextval(pg_get_serial_sequence('movies', 'id'))";
        let first: i64 = self.client.query_one(next, &[])?.try_get(0)?;
        self.add_movies(first, first + count - 1, None)?;
        Ok(first)
    }

    /// Deletes the movies that a measurement added, and leaves no vacuum or checkpoint for the next one to run. The
    /// sequence of ids is not set back, since a server may still execute the last requests of its load.
    pub fn tidy(&mut self) -> anyhow::Result<()> {
        self.client
            .execute("delete from movies where id > $1", &[&self.movies])?;
        self.vacuum()?;
        Ok(self.client.batch_execute("checkpoint")?)
    }

    /// Makes the files of the write-ahead log that a cluster in use has and recycles. A new cluster creates each of them
    /// from 16 MB of zeros while commits wait, three or four a second under 10,000 creates a second. That made the p99 of
    /// creates 11 ms; with existing files it is 5 ms.
    fn make_wal_files(&mut self) -> anyhow::Result<()> {
        for _ in 0..WAL_FILES {
            // PostgreSQL switches to the next file only if something was written to this one.
            self.client.batch_execute(
                "select pg_logical_emit_message(false, 'bench', ''); select pg_switch_wal()",
            )?;
        }
        Ok(self.client.batch_execute("checkpoint")?)
    }

    pub fn vacuum(&mut self) -> anyhow::Result<()> {
        Ok(self.client.batch_execute("vacuum analyze")?)
    }

    /// Turns autovacuum of the whole cluster on or off. Returns `autovacuum_naptime`, the interval of its checks.
    pub fn set_autovacuum(&mut self, is_on: bool) -> anyhow::Result<String> {
        let value = if is_on { "on" } else { "off" };
        self.client
            .batch_execute(&format!("alter system set autovacuum = {value}"))?;
        self.client.batch_execute("select pg_reload_conf()")?;
        let naptime = self.client.query_one("show autovacuum_naptime", &[])?;
        Ok(naptime.try_get(0)?)
    }

    /// Describes in words what autovacuum has done to the table of movies.
    pub fn vacuum_state(&mut self) -> anyhow::Result<String> {
        let state = self.client.query_one(
            "select format('autovacuum ran %s times so far, %s of %s pages are marked all-visible',
                 autovacuum_count, relallvisible, pg_relation_size(relid) / current_setting('block_size')::bigint)
             from pg_stat_user_tables
             join pg_class on pg_class.oid = relid
             where pg_class.relname = 'movies'",
            &[],
        )?;
        Ok(state.try_get(0)?)
    }

    /// Returns how many statements the service has executed since the last call. Its statements about movies are
    /// recognised by their alias `requester`.
    pub fn take_statements(&mut self) -> anyhow::Result<i64> {
        let counted = self.client.query_one(
            "select coalesce(sum(calls), 0)::bigint from pg_stat_statements
             join pg_database on pg_database.oid = dbid
             where datname = current_database() and toplevel and query ilike '%requester%'",
            &[],
        )?;
        self.client
            .execute("select pg_stat_statements_reset()", &[])?;
        Ok(counted.try_get(0)?)
    }
}

/// Writes a token for each user into the bench's folder, and returns the path of the file.
fn write_tokens(database: &str) -> anyhow::Result<PathBuf> {
    let key = Key::new(SECRET_KEY)?;
    let mut lines = String::new();
    for user in 1..=USERS {
        writeln!(lines, "{}", key.sign(user)?)?;
    }
    let folder = std::env::var_os("BENCH_FOLDER").context("BENCH_FOLDER is not set")?;
    let file = PathBuf::from(folder).join(format!("{database}.tokens"));
    std::fs::write(&file, lines)?;
    Ok(file)
}
