//! What the API's bodies and queries are described to take: the bounds are those of the fields that handlers read.
use serde_json::{Map, Value, json};

use super::account::{
    EMAIL, FIRST_NAME, LAST_NAME, PASSWORD, PASSWORD_AGAIN, REFRESH, SIGN_IN_NAME,
    SIGN_IN_PASSWORD, USERNAME,
};
use super::fields::TextField;
use super::movies::{GENRE, TITLE, YEAR};
use super::operations::Operation;
use super::query::{DEFAULT_PAGE_SIZE, LARGEST_PAGE_SIZE};
use crate::auth::password::MINIMUM_LENGTH;

/// No NUL, and a character that Python's str.strip leaves.
const NOT_BLANK: &str = r"^[^\u0000]*[^\u0000\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\u0000]*$";

/// No NUL.
const WITHOUT_NULL: &str = r"^[^\u0000]*$";

/// Text that is read as a number of 32 bits, its longest and its odder forms left out.
const WHOLE_NUMBER: &str = r"^ *[+-]?[0-9]{1,9}(\.0*)? *$";

const EXAMPLE_PASSWORD: &str = "Str0ng-Passw0rd!x";

/// The shape of every body that is taken, by its name.
pub fn schemas() -> Map<String, Value> {
    let password = |field: &TextField| {
        let more = json!({"format": "password", "minLength": MINIMUM_LENGTH, "example": EXAMPLE_PASSWORD,
            "description": "Not of digits alone, and no common one"});
        (field.name, text(field, more))
    };
    let plain =
        |field: &TextField, example: &str| (field.name, text(field, json!({"example": example})));
    let username = json!({"pattern": r"^[\w.@+-]+$", "example": "ann", "description": "Unique; letters and digits of any script and `@.+-_`"});
    let email = json!({"type": "string", "format": "email", "example": "ann@example.com", "description": "Unique"});
    let account = [
        (USERNAME.name, text(&USERNAME, username)),
        password(&PASSWORD),
        password(&PASSWORD_AGAIN),
        (EMAIL.name, text(&EMAIL, email)),
        plain(&FIRST_NAME, "Ann"),
        plain(&LAST_NAME, "Lee"),
    ];
    let credentials = [
        plain(&SIGN_IN_NAME, "ann"),
        (
            SIGN_IN_PASSWORD.name,
            text(
                &SIGN_IN_PASSWORD,
                json!({"format": "password", "example": EXAMPLE_PASSWORD}),
            ),
        ),
    ];
    let movie = || {
        [
            plain(&TITLE, "Heat"),
            plain(&GENRE, "Crime"),
            (YEAR, whole_number()),
        ]
    };
    let bodies = [
        (
            "Registration",
            object("What a registration takes", 4, account),
        ),
        (
            "Credentials",
            object("What a sign-in takes", 2, credentials),
        ),
        (
            "RefreshToken",
            object(
                "What a refresh takes",
                1,
                [(REFRESH.name, text(&REFRESH, json!({})))],
            ),
        ),
        (
            "MovieFields",
            object("A movie to be made, or all its fields anew", 3, movie()),
        ),
        (
            "MovieChanges",
            object("Those fields of a movie that are to change", 0, movie()),
        ),
    ];
    bodies
        .map(|(name, schema)| (name.to_owned(), schema))
        .into_iter()
        .collect()
}

/// An object whose first so many fields are required.
fn object<const FIELDS: usize>(
    description: &str,
    required: usize,
    fields: [(&'static str, Value); FIELDS],
) -> Value {
    let names: Vec<&str> = fields
        .iter()
        .take(required)
        .map(|(name, _)| *name)
        .collect();
    let properties: Map<String, Value> = fields
        .map(|(name, schema)| (name.to_owned(), schema))
        .into_iter()
        .collect();
    let mut schema =
        json!({"type": "object", "description": description, "properties": properties});
    if let (Some(schema), false) = (schema.as_object_mut(), names.is_empty()) {
        schema.insert("required".to_owned(), names.into());
    }
    schema
}

/// A field of text, for which a number is taken too; `more` is said besides, or instead.
fn text(field: &TextField, more: Value) -> Value {
    let mut schema = Map::from_iter([("type".to_owned(), json!(["string", "number"]))]);
    if field.may_be_blank {
        schema.insert("pattern".to_owned(), WITHOUT_NULL.into());
    } else {
        schema.insert("minLength".to_owned(), 1.into());
        schema.insert("pattern".to_owned(), NOT_BLANK.into());
    }
    if let Some(longest) = field.longest() {
        schema.insert("maxLength".to_owned(), longest.into());
    }
    if let Value::Object(more) = more {
        schema.extend(more);
    }
    schema.into()
}

fn whole_number() -> Value {
    let number =
        json!({"type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX});
    json!({"anyOf": [number, {"type": "string", "pattern": WHOLE_NUMBER}], "example": 1995})
}

/// What stands in an operation's path and in its query.
pub fn parameters(operation: &Operation) -> Value {
    if operation.is_of_one() {
        return json!([{"name": "id", "in": "path", "required": true, "schema": {"type": "integer", "minimum": 0}}]);
    }
    if operation.id != "list_movies" {
        return json!([]);
    }
    let parameter = |name: &str, description: String, schema: Value| json!({"name": name, "in": "query", "description": description, "schema": schema});
    let contained = |name| {
        let schema = json!({"type": "string", "pattern": WITHOUT_NULL});
        parameter(name, "Contained, whatever the case".to_owned(), schema)
    };
    let year = |name, description: &str| {
        let schema = json!({"anyOf": [{"type": "number"}, {"type": "string", "maxLength": 0}]});
        parameter(name, description.to_owned(), schema)
    };
    let page = json!({"type": "string", "pattern": "^([1-9][0-9]*|last)?$"});
    let size = json!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE_SIZE}, {"type": "string"}]});
    let sizes =
        format!("1 to {LARGEST_PAGE_SIZE}, more is as much; {DEFAULT_PAGE_SIZE} for anything else");
    json!([
        parameter(
            "page",
            "A number from 1, or last; empty is 1".to_owned(),
            page
        ),
        parameter("page_size", sizes, size),
        contained("title"),
        contained("genre"),
        contained("creator__username"),
        year("year", "Exactly"),
        year("year__gt", "Later than"),
        year("year__lt", "Earlier than"),
    ])
}
