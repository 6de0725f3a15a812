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

impl Model {
    const ALL: [Model; 2] = [Model::User, Model::Movie];

    /// The model's name in a dump.
    pub fn label(self) -> &'static str {
        match self {
            Model::User => "auth.user",
            Model::Movie => "movies.movie",
        }
    }

    fn fields(self) -> &'static [&'static str] {
        match self {
            Model::User => &[
                "username",
                "password",
                "email",
                "first_name",
                "last_name",
                "is_active",
                "date_joined",
            ],
            Model::Movie => &[
                "title",
                "genre",
                "year",
                "creator",
                "created_at",
                "updated_at",
            ],
        }
    }
}

/// One object of a dump.
#[derive(Debug)]
pub enum Record {
    Imported {
        model: Model,
        /// `None` in a dump made with --natural-primary.
        pk: Option<Value>,
        /// The imported fields.
        fields: Map<String, Value>,
        /// The names of the other fields.
        other_fields: Vec<String>,
    },
    /// A record of another model, which this label names.
    PassedOver(String),
}

/// Calls `on_record` with each record and the number of bytes read so far.
///
/// # Errors
/// What is wrong with the dump, with the line and the column; or the error of `on_record`, after which nothing more is
/// read.
pub fn read_records(
    mut input: impl Read,
    mut on_record: impl FnMut(Record, u64) -> Result<(), Error>,
) -> Result<(), ImportError> {
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
        (None, Ok(())) => Ok(()),
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
struct Position {
    bytes: Cell<u64>,
    max_bytes: Cell<u64>,
    line: Cell<u64>,
    column: Cell<u64>,
}

impl Default for Position {
    fn default() -> Position {
        Position {
            bytes: Cell::new(0),
            max_bytes: Cell::new(MAX_RECORD_BYTES),
            line: Cell::new(1),
            column: Cell::new(0),
        }
    }
}

impl Position {
    fn advance(&self, read: &[u8]) -> io::Result<()> {
        for byte in read {
            self.bytes.set(self.bytes.get() + 1);
            if *byte == b'\n' {
                self.line.set(self.line.get() + 1);
                self.column.set(0);
            } else {
                self.column.set(self.column.get() + 1);
            }
        }
        if self.bytes.get() > self.max_bytes.get() {
            let limit = MAX_RECORD_BYTES >> 20;
            return Err(io::Error::other(format!(
                "a record is longer than {limit} MiB"
            )));
        }
        Ok(())
    }

    fn begin_record(&self) {
        self.max_bytes.set(self.bytes.get() + MAX_RECORD_BYTES);
    }

    fn allow_any_length(&self) {
        self.max_bytes.set(u64::MAX);
    }

    fn describe(&self, error: &serde_json::Error) -> String {
        match error.classify() {
            serde_json::error::Category::Eof => format!("it ends too early: {error}"),
            // Errors of the input have no position of their own.
            serde_json::error::Category::Io => format!(
                "{error} at line {} column {}",
                self.line.get(),
                self.column.get()
            ),
            _ => error.to_string(),
        }
    }
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
            let model = label.as_deref().map(find_model);
            match member.as_str() {
                "model" => {
                    let text: String = members.next_value()?;
                    if find_model(&text).is_none() {
                        self.0.allow_any_length();
                    }
                    label = Some(text);
                }
                // Of a record that is passed over, nothing more is needed.
                _ if model == Some(None) => _ = members.next_value::<IgnoredAny>()?,
                "pk" => pk = members.next_value::<Option<Value>>()?,
                "fields" => {
                    let models = match model.flatten() {
                        Some(model) => vec![model],
                        None => Model::ALL.to_vec(),
                    };
                    fields = Some(members.next_value_seed(FieldsSeed(models))?);
                }
                _ => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        let label = label.ok_or_else(|| A::Error::missing_field("model"))?;
        let Some(model) = find_model(&label) else {
            return Ok(Record::PassedOver(label));
        };
        let Some((mut fields, mut other_fields)) = fields else {
            return Err(A::Error::missing_field("fields"));
        };
        // Where the fields come before the model, those of both models were read.
        fields.retain(|name, _| {
            let is_imported = model.fields().contains(&name.as_str());
            if !is_imported {
                other_fields.push(name.clone());
            }
            is_imported
        });
        Ok(Record::Imported {
            model,
            pk,
            fields,
            other_fields,
        })
    }
}

/// Labels are case-insensitive in Django.
fn find_model(label: &str) -> Option<Model> {
    let is_named = |model: &Model| model.label().eq_ignore_ascii_case(label);
    Model::ALL.into_iter().find(is_named)
}

/// Reads the fields of these models, and of other fields only the names.
struct FieldsSeed(Vec<Model>);

impl<'de> DeserializeSeed<'de> for FieldsSeed {
    type Value = (Map<String, Value>, Vec<String>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed {
    type Value = (Map<String, Value>, Vec<String>);

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("the fields of a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let (mut fields, mut other_fields) = (Map::new(), Vec::new());
        while let Some(name) = members.next_key::<String>()? {
            let is_imported = |model: &Model| model.fields().contains(&name.as_str());
            if self.0.iter().any(is_imported) {
                fields.insert(name, members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
                other_fields.push(name);
            }
        }
        Ok((fields, other_fields))
    }
}
