//! Loads a dump of Django's `dumpdata` into temporary tables that have the names and columns of the application's tables.
//! The statements that check and copy a Django database then work on them too.
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{Read, Write};

use postgres::Transaction;
use serde_json::{Map, Value};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use super::dump_reader::{Model, Record, read_records};
use super::{ImportError, Progress, Step, query, query_one};
use crate::db::error::classify;
use crate::db::{Error, Sql, get, sql};

pub const CREATE_TABLES: Sql = sql!("import_dump/create_tables", []);
const COPY_USERS: Sql = sql!("import_dump/copy_users", []);
const COPY_MOVIES: Sql = sql!("import_dump/copy_movies", []);
const INDEX_TABLES: Sql = sql!("import_dump/index_tables", []);
const FIND_REPEATED_IDS: Sql = sql!("import_dump/find_repeated_ids", []);
const CHOOSE_LAST_IDS: Sql = sql!("import_dump/choose_last_ids", []);

/// The first id of users whose ids the dump does not contain. Django's users have 32-bit ids, so that no token of the
/// source names this one or a later one.
const FIRST_NEW_USER_ID: i64 = 1 << 31;

/// Rows are sent to the server in chunks of this many bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// Progress is shown each time that this many bytes more were read.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Longer texts are cut here: too long for every column, so that a check refuses them, and short enough for an index.
const MAX_TEXT_CHARACTERS: usize = 600;

/// How many different names of models and of fields are remembered for the output.
const MAX_NAMES: usize = 100;

/// What was loaded from a dump, and what was not.
#[derive(Default)]
pub struct Loaded {
    /// Why the dump as a whole cannot be imported.
    pub problems: Vec<String>,
    /// Why single records cannot be imported.
    pub record_problems: Vec<String>,
    /// The columns of the tables that the dump has beside the imported ones.
    pub columns_left_behind: BTreeSet<String>,
    /// The number of records of each other model, by its label.
    pub models_passed_over: BTreeMap<String, i64>,
    /// The number of dates and times that were taken for UTC.
    pub times_without_zone: i64,
    /// Whether the dump lacks the users' ids.
    pub has_new_user_ids: bool,
    /// Problems that the checks find only because of one in `record_problems`.
    consequences: HashSet<String>,
    users: i64,
    users_without_id: i64,
    movies: i64,
    movies_with_creator_id: i64,
}

/// Loads the dump, of `size` bytes if that is known, into tables that exist until the end of the transaction, which
/// [`CREATE_TABLES`] has set up.
///
/// # Errors
/// If the dump cannot be read, is not the JSON of `dumpdata`, or the database fails.
pub fn load(
    transaction: &mut Transaction,
    dump: impl Read,
    size: Option<u64>,
    progress: Progress,
) -> Result<Loaded, ImportError> {
    let mut loaded = Loaded::default();
    let mut users = Table::new(COPY_USERS);
    let mut movies = Table::new(COPY_MOVIES);
    let mut shown = 0;
    let bytes = read_records(dump, |record, bytes| {
        if bytes - shown >= PROGRESS_BYTES {
            shown = bytes;
            progress(Step::Reading { bytes, size });
        }
        match record {
            Record::PassedOver(label) => loaded.pass_over(label),
            Record::Imported {
                model,
                pk,
                fields,
                other_fields,
            } => {
                loaded.leave_behind(model, other_fields);
                let table = match model {
                    Model::User => &mut users,
                    Model::Movie => &mut movies,
                };
                loaded.add(model, pk, &fields, &mut table.lines);
                if table.lines.len() >= CHUNK_BYTES {
                    table.flush(transaction)?;
                }
            }
        }
        Ok(())
    })?;
    progress(Step::Read { bytes });
    loaded.check_models();
    if loaded.problems.is_empty() {
        users.flush(transaction)?;
        movies.flush(transaction)?;
        let indexed = transaction.batch_execute(INDEX_TABLES.text);
        indexed.map_err(|error| classify(&INDEX_TABLES, &error))?;
        for row in query(transaction, &FIND_REPEATED_IDS)? {
            let problem = get(&row, "problem", &FIND_REPEATED_IDS)?;
            loaded.record_problems.push(problem);
        }
    }
    Ok(loaded)
}

/// Returns the ids, of a user and of a movie, after which new ones are numbered.
pub fn choose_last_ids(transaction: &mut Transaction) -> Result<(i64, i64), Error> {
    let row = query_one(transaction, &CHOOSE_LAST_IDS)?;
    let id = |column| get(&row, column, &CHOOSE_LAST_IDS);
    Ok((id("last_user_id")?, id("last_movie_id")?))
}

/// Lines in COPY's text format that are to be added to a table.
struct Table {
    copy_in: Sql,
    lines: Vec<u8>,
}

impl Table {
    fn new(copy_in: Sql) -> Table {
        Table {
            copy_in,
            lines: Vec::new(),
        }
    }

    fn flush(&mut self, transaction: &mut Transaction) -> Result<(), Error> {
        let sql = self.copy_in;
        let writer = transaction.copy_in(sql.text);
        let mut writer = writer.map_err(|error| classify(&sql, &error))?;
        let written = writer.write_all(&self.lines);
        written.map_err(|error| sql.fault(error))?;
        writer.finish().map_err(|error| classify(&sql, &error))?;
        self.lines.clear();
        Ok(())
    }
}

impl Loaded {
    /// Whether a problem that the checks found only follows from one of this dump's records.
    pub fn explains(&self, problem: &str) -> bool {
        self.consequences.contains(problem)
    }

    fn pass_over(&mut self, label: String) {
        if self.models_passed_over.len() < MAX_NAMES || self.models_passed_over.contains_key(&label)
        {
            *self.models_passed_over.entry(label).or_default() += 1;
        }
    }

    fn leave_behind(&mut self, model: Model, fields: Vec<String>) {
        let table = match model {
            Model::User => "auth_user",
            Model::Movie => "movies_movie",
        };
        for field in fields {
            if self.columns_left_behind.len() < MAX_NAMES {
                self.columns_left_behind.insert(format!("{table}.{field}"));
            }
        }
    }

    /// Appends the line of a record, unless its id is invalid.
    fn add(
        &mut self,
        model: Model,
        pk: Option<Value>,
        fields: &Map<String, Value>,
        lines: &mut Vec<u8>,
    ) {
        let (kind, count) = match model {
            Model::User => ("user", &mut self.users),
            Model::Movie => ("movie", &mut self.movies),
        };
        *count += 1;
        let id = match (&pk, model) {
            (None, Model::User) => {
                self.users_without_id += 1;
                Some(FIRST_NEW_USER_ID + self.users_without_id - 1)
            }
            (None, Model::Movie) => None,
            (Some(pk), _) => pk.as_i64(),
        };
        let Some(id) = id else {
            let shown = pk.map_or_else(
                || "without pk".to_owned(),
                |pk| cut(&pk.to_string(), 50).to_owned(),
            );
            let problem = format!("{kind} {shown}: its id is no 64-bit integer");
            self.record_problems.push(problem);
            return;
        };
        let mut line = Line {
            fields,
            text: id.to_string(),
            times_without_zone: 0,
            problems: Vec::new(),
        };
        match model {
            Model::User => line.push_user(),
            Model::Movie => self.movies_with_creator_id += i64::from(line.push_movie()),
        }
        line.text.push('\n');
        lines.extend_from_slice(line.text.as_bytes());
        self.times_without_zone += line.times_without_zone;
        // A record without an id of its own is named by its username.
        let shown = match (&pk, fields.get("username")) {
            (None, Some(username)) => cut(&username.to_string(), 200).to_owned(),
            _ => id.to_string(),
        };
        for problem in line.problems {
            let problem = format!("{kind} {shown}: {problem}");
            self.record_problems.push(problem);
            for consequence in ["it lacks a value", "its creator does not exist"] {
                self.consequences
                    .insert(format!("{kind} {id}: {consequence}"));
            }
        }
    }

    /// Finds the problems of the dump as a whole.
    fn check_models(&mut self) {
        self.has_new_user_ids = self.users_without_id > 0;
        for (model, count) in [(Model::User, self.users), (Model::Movie, self.movies)] {
            if count == 0 {
                let mut problem = format!("the dump has no record of {}", model.label());
                if !self.models_passed_over.is_empty() {
                    let found: Vec<_> = self.models_passed_over.keys().cloned().collect();
                    problem += &format!("; it has records of {}", found.join(", "));
                }
                self.problems.push(problem);
            }
        }
        if self.has_new_user_ids && self.users_without_id < self.users {
            let problem = "some users of the dump have a pk and others have none";
            self.problems.push(problem.to_owned());
        }
        if self.has_new_user_ids && self.movies_with_creator_id > 0 {
            let problem = "the users have no pk, and movies name their creator by it: make the dump without \
                           --natural-primary, or with --natural-foreign too";
            self.problems.push(problem.to_owned());
        }
    }
}

/// Builds the line of one record in COPY's text format. A value of a wrong type is written as null, and is a problem.
struct Line<'a> {
    fields: &'a Map<String, Value>,
    text: String,
    times_without_zone: i64,
    problems: Vec<String>,
}

impl Line<'_> {
    fn push_user(&mut self) {
        for name in ["username", "password", "email", "first_name", "last_name"] {
            self.push_text(name);
        }
        self.push_boolean("is_active");
        self.push_time("date_joined");
    }

    /// Returns whether the creator is named by an id.
    fn push_movie(&mut self) -> bool {
        self.push_text("title");
        self.push_text("genre");
        self.push_integer("year");
        let has_creator_id = self.push_creator();
        self.push_time("created_at");
        self.push_time("updated_at");
        has_creator_id
    }

    fn push_text(&mut self, name: &str) {
        match self.fields.get(name) {
            None | Some(Value::Null) => self.push_null(),
            Some(Value::String(text)) if text.contains('\0') => {
                self.push_problem(name, "contains a null character");
            }
            Some(Value::String(text)) => self.push_escaped(text),
            Some(_) => self.push_problem(name, "is not a string"),
        }
    }

    fn push_boolean(&mut self, name: &str) {
        match self.fields.get(name) {
            None | Some(Value::Null) => self.push_null(),
            Some(Value::Bool(value)) => self.push(&value.to_string()),
            Some(_) => self.push_problem(name, "is not true or false"),
        }
    }

    fn push_integer(&mut self, name: &str) {
        let value = self.fields.get(name).filter(|value| !value.is_null());
        match value.map(Value::as_i64) {
            None => self.push_null(),
            Some(Some(number)) => self.push(&number.to_string()),
            Some(None) => self.push_problem(name, "is no 64-bit integer"),
        }
    }

    fn push_time(&mut self, name: &str) {
        match self.fields.get(name) {
            None | Some(Value::Null) => self.push_null(),
            Some(Value::String(text)) => match parse_time(text) {
                Some((time, has_zone)) => {
                    self.times_without_zone += i64::from(!has_zone);
                    self.push(&time);
                }
                None => self.push_problem(name, "is no date and time"),
            },
            Some(_) => self.push_problem(name, "is no date and time"),
        }
    }

    /// Writes the creator's id and username, one of which is null. Returns whether it is the id that is there.
    fn push_creator(&mut self) -> bool {
        match self.fields.get("creator") {
            Some(Value::Array(key)) => {
                self.push_null();
                match key.as_slice() {
                    [Value::String(username)] if !username.contains('\0') => {
                        self.push_escaped(username);
                    }
                    _ => self.push_problem("creator", "is no natural key of a user"),
                }
                false
            }
            creator => {
                let has_id = creator.is_some_and(|creator| !creator.is_null());
                self.push_integer("creator");
                self.push_null();
                has_id
            }
        }
    }

    fn push_problem(&mut self, name: &str, problem: &str) {
        self.problems.push(format!("its {name} {problem}"));
        self.push_null();
    }

    fn push_null(&mut self) {
        self.push("\\N");
    }

    fn push_escaped(&mut self, text: &str) {
        let text = cut(text, MAX_TEXT_CHARACTERS);
        let text = text.replace('\\', "\\\\").replace('\n', "\\n");
        self.push(&text.replace('\r', "\\r").replace('\t', "\\t"));
    }

    fn push(&mut self, value: &str) {
        self.text.push('\t');
        self.text.push_str(value);
    }
}

/// Returns the first `max_characters` of the text.
fn cut(text: &str, max_characters: usize) -> &str {
    let end = text.char_indices().nth(max_characters);
    end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// Parses ISO 8601 as Django writes it. Returns the time in UTC, and whether its zone is given; without one, which is how
/// Django writes times with `USE_TZ = False`, it is taken for UTC.
fn parse_time(text: &str) -> Option<(String, bool)> {
    let (time, has_zone) = match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(time) => (time, true),
        Err(_) => (
            OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339).ok()?,
            false,
        ),
    };
    let time = time.checked_to_offset(UtcOffset::UTC)?;
    // PostgreSQL has no year 0.
    let formatted = time.format(&Rfc3339).ok()?;
    (time.year() > 0).then_some((formatted, has_zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<(Loaded, String), String> {
        let mut loaded = Loaded::default();
        let mut lines = Vec::new();
        let read = read_records(text.as_bytes(), |record, _| {
            match record {
                Record::PassedOver(label) => loaded.pass_over(label),
                Record::Imported {
                    model,
                    pk,
                    fields,
                    other_fields,
                } => {
                    loaded.leave_behind(model, other_fields);
                    loaded.add(model, pk, &fields, &mut lines);
                }
            }
            Ok(())
        });
        read.map_err(|error| error.to_string())?;
        loaded.check_models();
        Ok((loaded, String::from_utf8(lines).unwrap()))
    }

    fn error_of(text: &str) -> String {
        load_text(text).map(|_| ()).unwrap_err()
    }

    #[test]
    fn members_of_a_record_may_come_in_any_order() {
        let (loaded, lines) = load_text(
            r#"[{"fields": {"title": "a\tb\\\n", "genre": "", "year": 1, "creator": 3, "username": "x"}, "pk": 2,
                 "model": "movies.Movie"}, {"fields": {"title": 5}, "model": "blog.post"}]"#,
        )
        .unwrap();
        assert_eq!(lines, "2\ta\\tb\\\\\\n\t\t1\t3\t\\N\t\\N\t\\N\n");
        assert_eq!(
            loaded.columns_left_behind,
            BTreeSet::from(["movies_movie.username".to_owned()])
        );
        assert_eq!(
            loaded.models_passed_over,
            BTreeMap::from([("blog.post".to_owned(), 1)])
        );
        assert_eq!(
            loaded.problems,
            ["the dump has no record of auth.user; it has records of blog.post"]
        );
    }

    #[test]
    fn invalid_json_error_has_line_and_column() {
        for (text, expected) in [
            ("", "it is empty"),
            (
                " \n ",
                "it ends too early: EOF while parsing a value at line 2 column 1",
            ),
            (
                "[\n{\"model\": \"auth.us",
                "it ends too early: EOF while parsing a string at line 2 column 18",
            ),
            ("[\n{\"model\": auth}", "expected value at line 2 column 11"),
            ("[] x", "trailing characters at line 1 column 4"),
            (
                "{}",
                "invalid type: map, expected the array of records that dumpdata writes at line 1 column 1",
            ),
            (
                "[7]",
                "invalid type: integer `7`, expected a record with model, pk and fields at line 1 column 3",
            ),
            ("[{\"pk\": 7}]", "missing field `model` at line 1 column 10"),
            (
                "[{\"model\": \"auth.user\", \"pk\": 7}]",
                "missing field `fields` at line 1 column 32",
            ),
            (
                "[{\"model\": \"auth.user\", \"fields\": 7}]",
                "invalid type: integer `7`, expected the fields of a record at line 1 column 36",
            ),
        ] {
            assert_eq!(
                error_of(text),
                format!("nothing was imported: the dump cannot be read: {expected}"),
                "{text}"
            );
        }
        let compressed = read_records(&b"\x1f\x8b\x08"[..], |_, _| Ok(()));
        assert!(
            compressed
                .unwrap_err()
                .to_string()
                .contains("it is compressed")
        );
    }

    #[test]
    fn record_longer_than_the_limit_is_an_error_unless_it_is_passed_over() {
        let huge = "x".repeat(17 << 20);
        let record = |model| {
            format!(
                "[\n{{\"model\": \"{model}\", \"pk\": 1, \"fields\": {{\"title\": \"{huge}\"}}}}]"
            )
        };
        let error = error_of(&record("movies.movie"));
        assert!(
            error.contains("a record is longer than 16 MiB at line 2 column 16777"),
            "{error}"
        );
        let (loaded, _) = load_text(&record("blog.post")).unwrap();
        assert_eq!(loaded.models_passed_over.len(), 1);
    }

    #[test]
    fn values_of_wrong_types_are_problems_named_with_the_pk() {
        let (loaded, _) = load_text(
            r#"[{"model": "auth.user", "pk": 7, "fields": {"username": 5, "password": "\u0000", "is_active": 1, "date_joined": "now"}},
                {"model": "auth.user", "pk": "7", "fields": {}},
                {"model": "movies.movie", "pk": 18446744073709551616, "fields": {}},
                {"model": "movies.movie", "fields": {}},
                {"model": "movies.movie", "pk": 8, "fields": {"year": 1.5, "creator": ["a", "b"]}}]"#,
        )
        .unwrap();
        assert_eq!(
            loaded.record_problems,
            [
                "user 7: its username is not a string",
                "user 7: its password contains a null character",
                "user 7: its is_active is not true or false",
                "user 7: its date_joined is no date and time",
                "user \"7\": its id is no 64-bit integer",
                "movie 1.8446744073709552e+19: its id is no 64-bit integer",
                "movie without pk: its id is no 64-bit integer",
                "movie 8: its year is no 64-bit integer",
                "movie 8: its creator is no natural key of a user",
            ]
        );
        assert!(loaded.explains("user 7: it lacks a value"));
        assert!(!loaded.explains("user 8: it lacks a value"));
    }

    #[test]
    fn creators_by_id_need_users_with_ids() {
        let movie = |creator| {
            format!(r#"{{"model": "movies.movie", "pk": 1, "fields": {{"creator": {creator}}}}}"#)
        };
        let user = r#"{"model": "auth.user", "fields": {"username": "ann"}}"#;
        let (loaded, _) = load_text(&format!("[{user}, {}]", movie("1"))).unwrap();
        assert_eq!(loaded.problems.len(), 1);
        let (loaded, lines) = load_text(&format!("[{user}, {}]", movie("[\"ann\"]"))).unwrap();
        assert_eq!((loaded.problems.len(), loaded.has_new_user_ids), (0, true));
        assert!(lines.starts_with("2147483648\tann\t"), "{lines}");
    }

    #[test]
    fn times_are_read_with_and_without_zone() {
        for (text, time, has_zone) in [
            ("2019-03-04T05:06:07.891Z", "2019-03-04T05:06:07.891Z", true),
            ("2019-03-04T05:06:07+05:30", "2019-03-03T23:36:07Z", true),
            ("2019-03-04T05:06:07.891", "2019-03-04T05:06:07.891Z", false),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", true),
        ] {
            assert_eq!(
                parse_time(text),
                Some((time.to_owned(), has_zone)),
                "{text}"
            );
        }
        for text in [
            "",
            "2019-03-04",
            "2019-02-30T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
