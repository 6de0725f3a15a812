//! Reads the JSON that Django's `dumpdata` writes, an array of records, one record at a time.
//!
//! A record is `{"model": "auth.user", "pk": 7, "fields": {...}}`, with its members in any order. Records of other models
//! are passed over without being stored, whatever their size.
use std::cell::Cell;
use std::fmt;
use std::io::{self, BufReader, Read};

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};

use super::ImportError;
use crate::db::Error;

/// The most bytes of one record. A valid movie or user takes less than 10 KiB.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// The models that are imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    User,
    Movie,
}

/// How the value of a field is checked and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    Text,
    Boolean,
    Integer,
    Time,
    /// The id of a user, or in a dump made with --natural-foreign an array with the username.
    Creator,
}

impl Model {
    const ALL: [Model; 2] = [Model::User, Model::Movie];

    /// The model's name in a dump.
    pub fn label(self) -> &'static str {
        match self {
            Model::User => "auth.user",
            Model::Movie => "movies.movie",
        }
    }

    /// The imported fields, in the order of the columns in `import_dump/copy_users` and `copy_movies`.
    pub fn fields(self) -> &'static [(&'static str, FieldType)] {
        match self {
            Model::User => &[
                ("username", FieldType::Text),
                ("password", FieldType::Text),
                ("email", FieldType::Text),
                ("first_name", FieldType::Text),
                ("last_name", FieldType::Text),
                ("is_active", FieldType::Boolean),
                ("date_joined", FieldType::Time),
            ],
            Model::Movie => &[
                ("title", FieldType::Text),
                ("genre", FieldType::Text),
                ("year", FieldType::Integer),
                ("creator", FieldType::Creator),
                ("created_at", FieldType::Time),
                ("updated_at", FieldType::Time),
            ],
        }
    }

    pub fn has_field(self, name: &str) -> bool {
        self.fields().iter().any(|(field, _)| *field == name)
    }

    /// Labels are case-insensitive in Django.
    fn find(label: &str) -> Option<Model> {
        let is_named = |model: &Model| model.label().eq_ignore_ascii_case(label);
        Model::ALL.into_iter().find(is_named)
    }
}

/// One object of a dump.
#[derive(Debug)]
pub enum Record {
    Imported {
        model: Model,
        /// `None` in a dump made with --natural-primary.
        pk: Option<Value>,
        /// All fields; null stands for the value of a field that is not imported.
        fields: Map<String, Value>,
    },
    /// A record of another model, which this label names.
    PassedOver(String),
}

/// Calls `on_record` with each record and the number of bytes read so far. Returns the number of all bytes.
///
/// # Errors
/// What is wrong with the dump, with the line and the column; or the error of `on_record`, after which nothing more is
/// read.
pub fn read_records(
    mut input: impl Read,
    mut on_record: impl FnMut(Record, u64) -> Result<(), Error>,
) -> Result<u64, ImportError> {
    let mut start = Vec::new();
    let read = input.by_ref().take(3).read_to_end(&mut start);
    read.map_err(|error| ImportError::Dump(error.to_string()))?;
    if let Some(reason) = recognize_other_format(&start) {
        return Err(ImportError::Dump(reason.to_owned()));
    }
    let text_start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start);
    let position = Position::default();
    let reader = PositionReader {
        inner: BufReader::new(text_start.chain(input)),
        position: &position,
    };
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    let mut failure = None;
    let records = Records {
        position: &position,
        on_record: &mut on_record,
        failure: &mut failure,
    };
    let read = deserializer.deserialize_seq(records);
    let read = read.and_then(|()| deserializer.end());
    match (failure, read) {
        (Some(error), _) => Err(ImportError::Database(error)),
        (None, Err(error)) => Err(ImportError::Dump(position.describe(&error))),
        (None, Ok(())) => Ok(position.bytes.get()),
    }
}

/// Returns why a file that begins with these bytes is no JSON in UTF-8.
fn recognize_other_format(start: &[u8]) -> Option<&'static str> {
    match start {
        [] => Some("it is empty"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            Some("it is UTF-16, not UTF-8: write it with `dumpdata --output FILE`")
        }
        [0x1f, 0x8b, ..] | b"BZh" | b"\xfd7z" => {
            Some("it is compressed: pass its decompressed text to `movies-api import-django -`")
        }
        _ => None,
    }
}

/// How far the input was read, and how far it may be read before the current record ends.
#[derive(Default)]
struct Position {
    bytes: Cell<u64>,
    line_start: Cell<u64>,
    record_start: Cell<u64>,
    /// Line feeds before this position.
    lines: Cell<u64>,
    is_length_unlimited: Cell<bool>,
}

impl Position {
    fn advance(&self, read: &[u8]) -> io::Result<()> {
        for byte in read {
            self.bytes.set(self.bytes.get() + 1);
            if *byte == b'\n' {
                self.lines.set(self.lines.get() + 1);
                self.line_start.set(self.bytes.get());
            }
        }
        let length = self.bytes.get() - self.record_start.get();
        if length > MAX_RECORD_BYTES && !self.is_length_unlimited.get() {
            let limit = MAX_RECORD_BYTES >> 20;
            return Err(io::Error::other(format!(
                "a record is longer than {limit} MiB"
            )));
        }
        Ok(())
    }

    fn begin_record(&self) {
        self.record_start.set(self.bytes.get());
        self.is_length_unlimited.set(false);
    }

    fn describe(&self, error: &serde_json::Error) -> String {
        match error.classify() {
            serde_json::error::Category::Eof => format!("it ends too early: {error}"),
            // Some errors of the input have no position of their own.
            serde_json::error::Category::Io if error.line() == 0 => format!(
                "{error} at line {} column {}",
                self.lines.get() + 1,
                self.bytes.get() - self.line_start.get()
            ),
            serde_json::error::Category::Data => without_value(&error.to_string()),
            _ => error.to_string(),
        }
    }
}

/// Removes the value from an error such as "invalid type: string \"opensesame\", expected ...": it may be a secret.
fn without_value(text: &str) -> String {
    let (found, expected) = match text.rsplit_once(", expected ") {
        Some(parts) if text.starts_with("invalid ") => parts,
        _ => return text.to_owned(),
    };
    let kind = found.split(['"', '`']).next().unwrap_or_default();
    format!("{}, expected {expected}", kind.trim_end())
}

struct PositionReader<'a, R> {
    inner: R,
    position: &'a Position,
}

impl<R: Read> Read for PositionReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.inner.read(buffer)?;
        let read = buffer.get(..size).unwrap_or_default();
        self.position.advance(read)?;
        Ok(size)
    }
}

/// Visits the array of records.
struct Records<'a, F> {
    position: &'a Position,
    on_record: &'a mut F,
    /// The error of `on_record`, which a deserialization error cannot hold.
    failure: &'a mut Option<Error>,
}

impl<'de, F: FnMut(Record, u64) -> Result<(), Error>> Visitor<'de> for Records<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("the array of records that dumpdata writes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<(), A::Error> {
        self.position.begin_record();
        while let Some(record) = records.next_element_seed(RecordSeed(self.position))? {
            if let Err(error) = (self.on_record)(record, self.position.bytes.get()) {
                *self.failure = Some(error);
                return Err(A::Error::custom("the record was not stored"));
            }
            self.position.begin_record();
        }
        Ok(())
    }
}

struct RecordSeed<'a>(&'a Position);

impl<'de> DeserializeSeed<'de> for RecordSeed<'_> {
    type Value = Record;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Record, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RecordSeed<'_> {
    type Value = Record;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a record with model, pk and fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Record, A::Error> {
        let (mut label, mut pk, mut fields) = (None::<String>, None, None);
        while let Some(member) = members.next_key::<String>()? {
            let is_passed_over = label
                .as_deref()
                .is_some_and(|label| Model::find(label).is_none());
            match member.as_str() {
                "model" => {
                    let text: String = members.next_value()?;
                    if Model::find(&text).is_none() {
                        self.0.is_length_unlimited.set(true);
                    }
                    label = Some(text);
                }
                "pk" if !is_passed_over => pk = members.next_value::<Option<Value>>()?,
                "fields" if !is_passed_over => fields = Some(members.next_value_seed(FieldsSeed)?),
                _ => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        let label = label.ok_or_else(|| A::Error::missing_field("model"))?;
        let Some(model) = Model::find(&label) else {
            return Ok(Record::PassedOver(label));
        };
        let fields = fields.ok_or_else(|| A::Error::missing_field("fields"))?;
        Ok(Record::Imported { model, pk, fields })
    }
}

/// Reads the fields of a record. Its model may follow them, so the imported fields of all models are stored.
struct FieldsSeed;

impl<'de> DeserializeSeed<'de> for FieldsSeed {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed {
    type Value = Map<String, Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("the fields of a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = if Model::ALL.iter().any(|model| model.has_field(&name)) {
                members.next_value()?
            } else {
                members.next_value::<IgnoredAny>()?;
                Value::Null
            };
            fields.insert(name, value);
        }
        Ok(fields)
    }
}
