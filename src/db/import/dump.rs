//! Loads a dump of Django's `dumpdata` into temporary tables that have the names and columns of the application's tables.
//! The statements that check and copy a Django database then work on them too.
use std::collections::HashSet;
use std::io::{Read, Write};

use postgres::Transaction;
use serde_json::{Map, Value};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use super::dump_reader::{FieldType, Model, Record, read_records};
use super::{ImportError, Imported, Progress, Step, query, query_one};
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
    /// What the dump contains beside the imported columns and models; its problems are those of the dump as a whole.
    pub imported: Imported,
    /// Why single records cannot be imported.
    pub record_problems: Vec<String>,
    /// Problems that the checks find only because of one in `record_problems`.
    pub consequences: HashSet<String>,
    users: Table,
    movies: Table,
    users_without_id: i64,
    movies_with_creator_id: i64,
}

#[derive(Default)]
struct Table {
    records: i64,
    /// Lines in COPY's text format that are still to be added to the table.
    lines: Vec<u8>,
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
    let mut loaded = read(dump, size, progress, |model, lines| {
        add_lines(transaction, model, lines)
    })?;
    if loaded.imported.problems.is_empty() {
        add_lines(transaction, Model::User, &loaded.users.lines)?;
        add_lines(transaction, Model::Movie, &loaded.movies.lines)?;
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

/// Passes each full chunk of a table's lines to `add_lines`; the lines after the last full chunk are left in the result.
fn read(
    dump: impl Read,
    size: Option<u64>,
    progress: Progress,
    mut add_lines: impl FnMut(Model, &[u8]) -> Result<(), Error>,
) -> Result<Loaded, ImportError> {
    let mut loaded = Loaded::default();
    let name = "dump";
    let mut shown = 0;
    let total = read_records(dump, |record, done| {
        if done - shown >= PROGRESS_BYTES {
            shown = done;
            let total = size;
            progress(Step { name, done, total });
        }
        match record {
            Record::PassedOver(label) => loaded.pass_over(label),
            Record::Imported { model, pk, fields } => {
                loaded.leave_behind(model, &fields);
                loaded.add(model, pk.as_ref(), &fields);
                let lines = &mut loaded.table(model).lines;
                if lines.len() >= CHUNK_BYTES {
                    add_lines(model, lines)?;
                    lines.clear();
                }
            }
        }
        Ok(())
    })?;
    progress(Step {
        name,
        done: total,
        total: Some(total),
    });
    loaded.check_models();
    Ok(loaded)
}

fn add_lines(transaction: &mut Transaction, model: Model, lines: &[u8]) -> Result<(), Error> {
    let sql = match model {
        Model::User => COPY_USERS,
        Model::Movie => COPY_MOVIES,
    };
    let writer = transaction.copy_in(sql.text);
    let mut writer = writer.map_err(|error| classify(&sql, &error))?;
    let written = writer.write_all(lines);
    written.map_err(|error| sql.fault(error))?;
    writer.finish().map_err(|error| classify(&sql, &error))?;
    Ok(())
}

impl Loaded {
    fn table(&mut self, model: Model) -> &mut Table {
        match model {
            Model::User => &mut self.users,
            Model::Movie => &mut self.movies,
        }
    }

    fn pass_over(&mut self, label: String) {
        let models = &mut self.imported.models_passed_over;
        if models.len() < MAX_NAMES || models.contains_key(&label) {
            *models.entry(label).or_default() += 1;
        }
    }

    fn leave_behind(&mut self, model: Model, fields: &Map<String, Value>) {
        let columns = &mut self.imported.columns_left_behind;
        for field in fields.keys().filter(|name| !model.has_field(name)) {
            // Django names a table after the label of its model.
            let column = format!("{}.{field}", model.label().replace('.', "_"));
            if let Err(position) = columns.binary_search(&column)
                && columns.len() < MAX_NAMES
            {
                columns.insert(position, column);
            }
        }
    }

    /// Appends the line of a record, unless its id is invalid. A value of a wrong type is written as null, and is a
    /// problem.
    fn add(&mut self, model: Model, pk: Option<&Value>, fields: &Map<String, Value>) {
        self.table(model).records += 1;
        let kind = match model {
            Model::User => "user",
            Model::Movie => "movie",
        };
        let id = match (pk, model) {
            (None, Model::User) => {
                self.users_without_id += 1;
                Some(FIRST_NEW_USER_ID + self.users_without_id - 1)
            }
            (pk, _) => pk.and_then(Value::as_i64),
        };
        let Some(id) = id else {
            let pk = pk.map_or_else(|| "without pk".to_owned(), Value::to_string);
            let problem = format!("{kind} {}: its id is no 64-bit integer", cut(&pk, 50));
            self.record_problems.push(problem);
            return;
        };
        let mut line = id.to_string();
        let mut problems = Vec::new();
        for (name, field_type) in model.fields() {
            let value = fields.get(*name).filter(|value| !value.is_null());
            let columns = value.map(|value| self.format_columns(*field_type, value));
            let columns = columns.transpose().unwrap_or_else(|problem| {
                problems.push(format!("its {name} {problem}"));
                None
            });
            line.push('\t');
            line.push_str(columns.as_deref().unwrap_or(match field_type {
                FieldType::Creator => "\\N\t\\N",
                _ => "\\N",
            }));
        }
        line.push('\n');
        self.table(model).lines.extend_from_slice(line.as_bytes());
        // A record without an id of its own is named by its username.
        let shown = match (pk, fields.get("username")) {
            (None, Some(username)) => cut(&username.to_string(), 200).to_owned(),
            _ => id.to_string(),
        };
        for problem in problems {
            let problem = format!("{kind} {shown}: {problem}");
            self.record_problems.push(problem);
            for consequence in ["it lacks a value", "its creator does not exist"] {
                self.consequences
                    .insert(format!("{kind} {id}: {consequence}"));
            }
        }
    }

    /// Returns the value in COPY's text format, or what is wrong with it. A creator takes two columns, the id and the
    /// username, of which one is null.
    fn format_columns(
        &mut self,
        field_type: FieldType,
        value: &Value,
    ) -> Result<String, &'static str> {
        match (field_type, value) {
            (FieldType::Text, Value::String(text)) if text.contains('\0') => {
                Err("contains a null character")
            }
            (FieldType::Text, Value::String(text)) => Ok(escape(text)),
            (FieldType::Text, _) => Err("is not a string"),
            (FieldType::Boolean, Value::Bool(value)) => Ok(value.to_string()),
            (FieldType::Boolean, _) => Err("is not true or false"),
            (FieldType::Integer, value) => format_integer(value),
            (FieldType::Time, value) => {
                let time = value.as_str().and_then(parse_time);
                let (time, has_zone) = time.ok_or("is no date and time")?;
                self.imported.times_without_zone += i64::from(!has_zone);
                Ok(time)
            }
            (FieldType::Creator, Value::Array(key)) => match key.as_slice() {
                [Value::String(username)] if !username.contains('\0') => {
                    Ok(format!("\\N\t{}", escape(username)))
                }
                _ => Err("is no natural key of a user"),
            },
            (FieldType::Creator, value) => {
                self.movies_with_creator_id += 1;
                Ok(format!("{}\t\\N", format_integer(value)?))
            }
        }
    }

    /// Finds the problems of the dump as a whole.
    fn check_models(&mut self) {
        self.imported.has_new_user_ids = self.users_without_id > 0;
        let passed_over = &self.imported.models_passed_over;
        let problems = &mut self.imported.problems;
        for (model, table) in [(Model::User, &self.users), (Model::Movie, &self.movies)] {
            if table.records == 0 {
                let mut problem = format!("the dump has no record of {}", model.label());
                if !passed_over.is_empty() {
                    let found: Vec<_> = passed_over.keys().cloned().collect();
                    problem += &format!("; it has records of {}", found.join(", "));
                }
                problems.push(problem);
            }
        }
        if self.users_without_id > 0 && self.users_without_id < self.users.records {
            let problem = "some users of the dump have a pk and others have none";
            problems.push(problem.to_owned());
        }
        if self.users_without_id > 0 && self.movies_with_creator_id > 0 {
            let problem = "the users have no pk, and movies name their creator by it: make the dump without \
                           --natural-primary, or with --natural-foreign too";
            problems.push(problem.to_owned());
        }
    }
}

fn format_integer(value: &Value) -> Result<String, &'static str> {
    let number = value.as_i64().ok_or("is no 64-bit integer")?;
    Ok(number.to_string())
}

/// Escapes a text for COPY's text format.
fn escape(text: &str) -> String {
    let text = cut(text, MAX_TEXT_CHARACTERS);
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    text.replace('\r', "\\r").replace('\t', "\\t")
}

/// Returns the first `max_characters` of the text.
fn cut(text: &str, max_characters: usize) -> &str {
    let end = text.char_indices().nth(max_characters);
    end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// Parses ISO 8601 as Django writes it. Returns the time in UTC, and whether its zone is given; without one, which is how
/// Django writes times with `USE_TZ = False`, it is taken for UTC.
fn parse_time(text: &str) -> Option<(String, bool)> {
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let with_zone = parse(text);
    let time = with_zone.or_else(|| parse(&format!("{text}Z")))?;
    let time = time.checked_to_offset(UtcOffset::UTC)?;
    // PostgreSQL has no year 0.
    let formatted = time.format(&Rfc3339).ok()?;
    (time.year() > 0).then_some((formatted, with_zone.is_some()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn load_text(text: &str) -> Result<(Loaded, String), String> {
        let mut lines = Vec::new();
        let read = read(text.as_bytes(), None, &mut |_| (), |_, chunk| {
            lines.extend_from_slice(chunk);
            Ok(())
        });
        let loaded = read.map_err(|error| error.to_string())?;
        lines.extend_from_slice(&loaded.users.lines);
        lines.extend_from_slice(&loaded.movies.lines);
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
            loaded.imported.columns_left_behind,
            ["movies_movie.username"]
        );
        assert_eq!(
            loaded.imported.models_passed_over,
            BTreeMap::from([("blog.post".to_owned(), 1)])
        );
        assert_eq!(
            loaded.imported.problems,
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
                "invalid type: integer, expected a record with model, pk and fields at line 1 column 3",
            ),
            (
                r#"["open, expected \"sesame\""]"#,
                "invalid type: string, expected a record with model, pk and fields at line 1 column 28",
            ),
            ("[{\"pk\": 7}]", "missing field `model` at line 1 column 10"),
            (
                "[{\"model\": \"auth.user\", \"pk\": 7}]",
                "missing field `fields` at line 1 column 32",
            ),
            (
                "[{\"model\": \"auth.user\", \"fields\": 7}]",
                "invalid type: integer, expected the fields of a record at line 1 column 36",
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
        assert_eq!(loaded.imported.models_passed_over.len(), 1);
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
        assert!(loaded.consequences.contains("user 7: it lacks a value"));
        assert!(!loaded.consequences.contains("user 8: it lacks a value"));
    }

    #[test]
    fn creators_by_id_need_users_with_ids() {
        let movie = |creator| {
            format!(r#"{{"model": "movies.movie", "pk": 1, "fields": {{"creator": {creator}}}}}"#)
        };
        let user = r#"{"model": "auth.user", "fields": {"username": "ann"}}"#;
        let (loaded, _) = load_text(&format!("[{user}, {}]", movie("1"))).unwrap();
        assert_eq!(loaded.imported.problems.len(), 1);
        let (loaded, lines) = load_text(&format!("[{user}, {}]", movie("[\"ann\"]"))).unwrap();
        assert_eq!(
            (
                loaded.imported.problems.len(),
                loaded.imported.has_new_user_ids
            ),
            (0, true)
        );
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
