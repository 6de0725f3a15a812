//! The database that is measured on: made by the product's own migrations, filled with users and movies.
use std::fmt::Write;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use postgres::{Client, Config, NoTls};

use crate::subjects::Subject;
use crate::token::Key;

pub const SECRET_KEY: &str = "a-key-of-the-benchmark-alone-0123456789";

const USERS: i64 = 1000;
const MOVIES: i64 = 100_000;
/// Users with a shelf where two shelves are compared: as many, so that tokens and ids are drawn alike.
const LIGHT_SHELF: i64 = 100;

/// Files of write-ahead log that are made before anything is measured: more than one measurement uses.
const WAL_FILES: usize = 64;

/// Titles are two of these and six hexadecimal digits.
const FIRST_WORDS: &[&str] = &[
    "The", "A", "Last", "First", "Night", "Lost", "Silent", "Red", "Dark", "Golden",
];
const SECOND_WORDS: &[&str] = &[
    "River", "Road", "Heat", "Garden", "Summer", "House", "Stranger", "Song", "Letter", "Game",
];

/// A database full of movies.
pub struct Database {
    pub url: String,
    pub users: i64,
    pub movies: i64,
    /// A file with a token for each user, in the order of their ids.
    pub tokens: PathBuf,
    client: Client,
}

impl Database {
    /// A hundred movies for each of a thousand users: user u has the movies u, u + 1000, u + 2000, ...
    pub fn with_movies() -> anyhow::Result<Database> {
        let mut database = Database::make(MOVIES)?;
        database.add_movies(1, MOVIES, None)?;
        database.tidy()?;
        Ok(database)
    }

    /// A shelf of three tenths of the movies for user 1, one of a hundred for user 2, the rest for the others.
    pub fn with_shelves(movies: i64) -> anyhow::Result<Database> {
        let mut database = Database::make(movies)?;
        database.add_movies(1, movies, Some(movies / LIGHT_SHELF))?;
        database.tidy()?;
        Ok(database)
    }

    fn make(movies: i64) -> anyhow::Result<Database> {
        let maintenance = std::env::var("TEST_DATABASE_URL").context("TEST_DATABASE_URL")?;
        let config = Config::from_str(&maintenance)?;
        config
            .connect(NoTls)?
            .batch_execute("create database bench")?;
        let url = format!("{maintenance} dbname=bench");
        // The product brings the schema.
        drop(Subject::product(&url)?);
        let mut client = Config::from_str(&url)?.connect(NoTls)?;
        client.batch_execute("create extension if not exists pg_stat_statements")?;
        client.execute(include_str!("../sql/seed_users.sql"), &[&USERS])?;
        let key = Key::new(SECRET_KEY)?;
        let mut lines = String::new();
        for user in 1..=USERS {
            writeln!(lines, "{}", key.mint(user)?)?;
        }
        let folder = std::env::var("BENCH_FOLDER").context("BENCH_FOLDER")?;
        let tokens = PathBuf::from(folder).join("tokens");
        std::fs::write(&tokens, lines)?;
        let mut database = Database {
            url,
            users: USERS,
            movies,
            tokens,
            client,
        };
        database.make_wal_files()?;
        Ok(database)
    }

    fn add_movies(&mut self, first: i64, last: i64, one_in: Option<i64>) -> anyhow::Result<()> {
        self.client.execute(
            include_str!("../sql/seed_movies.sql"),
            &[
                &first,
                &last,
                &self.users,
                &one_in,
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

    /// Movies to be deleted, so many; the first's id.
    pub fn add_fresh_movies(&mut self, how_many: i64) -> anyhow::Result<i64> {
        let next = "select nextval(pg_get_serial_sequence('movies', 'id'))";
        let first: i64 = self.client.query_one(next, &[])?.try_get(0)?;
        self.add_movies(first, first + how_many - 1, None)?;
        Ok(first)
    }

    /// As before: what a measurement added is gone, and nothing is left to be cleaned up during the next. Ids go on, since
    /// a server may still be at the last requests of its load.
    pub fn tidy(&mut self) -> anyhow::Result<()> {
        self.client
            .execute("delete from movies where id > $1", &[&self.movies])?;
        self.vacuum()?;
        Ok(self.client.batch_execute("checkpoint")?)
    }

    /// Leaves the cluster the files of write-ahead log that one has which ran for a while: it uses old files again. A new
    /// cluster makes each of them of 16 MB of zeros while commits wait, three or four a second under 10,000 creates a
    /// second, and that was the slowest hundredth of them: p99 11 ms, and 5 ms with files that were there.
    fn make_wal_files(&mut self) -> anyhow::Result<()> {
        for _ in 0..WAL_FILES {
            // A file is switched only if something was written to it.
            self.client.batch_execute(
                "select pg_logical_emit_message(false, 'bench', ''); select pg_switch_wal()",
            )?;
        }
        Ok(self.client.batch_execute("checkpoint")?)
    }

    pub fn vacuum(&mut self) -> anyhow::Result<()> {
        Ok(self.client.batch_execute("vacuum analyze")?)
    }

    /// Turns the cluster's autovacuum on or off; returns the interval at which it looks for work.
    pub fn set_autovacuum(&mut self, is_on: bool) -> anyhow::Result<String> {
        let word = if is_on { "on" } else { "off" };
        self.client
            .batch_execute(&format!("alter system set autovacuum = {word}"))?;
        self.client.batch_execute("select pg_reload_conf()")?;
        let naptime = self.client.query_one("show autovacuum_naptime", &[])?;
        Ok(naptime.try_get(0)?)
    }

    /// What autovacuum has done to the movies, in words.
    pub fn vacuum_state(&mut self) -> anyhow::Result<String> {
        let state = self.client.query_one(
            "select format('autovacuum ran %s times so far, %s of %s pages are marked as visible to all',
                 autovacuum_count, relallvisible, pg_relation_size(relid) / current_setting('block_size')::bigint)
             from pg_stat_user_tables
             join pg_class on pg_class.oid = relid
             where pg_class.relname = 'movies'",
            &[],
        )?;
        Ok(state.try_get(0)?)
    }

    /// How many statements the service had answered since the last call.
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
