//! The schemas of request bodies and parameters. Limits are those of the fields that handlers validate.
use serde_json::{Map, Value, json};

use super::{Operation, members};
use crate::api::account_fields::{
    CREDENTIALS_PASSWORD, CREDENTIALS_USERNAME, CURRENT_PASSWORD, EMAIL, FIRST_NAME, LAST_NAME,
    PASSWORD, PASSWORD_CONFIRMATION, REFRESH, TOKEN, USERNAME,
};
use crate::api::movies::{GENRE, TITLE, YEAR};
use crate::api::pagination::{DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE};
use crate::api::routes::RouteEntry;
use crate::api::validation::fields::CharField;
use crate::auth::password::MIN_LENGTH;

/// No NUL, and at least one character that Python's `str.strip` does not remove.
const NOT_BLANK: &str = r"^[^\u0000]*[^\u0000\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\u0000]*$";

/// No NUL.
const NO_NULL_CHARACTERS: &str = r"^[^\u0000]*$";

/// Text that is accepted as a 32-bit integer. Longer and less usual forms are accepted but not described.
const INTEGER_TEXT: &str = r"^ *[+-]?[0-9]{1,9}(\.0*)? *$";

const EXAMPLE_PASSWORD: &str = "Str0ng-Passw0rd!x";

/// The schemas of all request bodies by name.
pub fn request_bodies() -> Map<String, Value> {
    let plain = |field: &CharField, example: &str| text(field, json!({"example": example}));
    let secret = json!({"format": "password", "example": EXAMPLE_PASSWORD});
    let new_secret = json!({"format": "password", "minLength": MIN_LENGTH, "example": EXAMPLE_PASSWORD,
        "description": "Neither common nor entirely numeric"});
    let password = |field: &CharField| text(field, secret.clone());
    let new_password = |field: &CharField| text(field, new_secret.clone());
    let username = json!({"pattern": r"^[\w.@+-]+$", "example": "ann", "description": "Unique; letters and digits of any script and `@.+-_`"});
    let email = json!({"type": "string", "format": "email", "example": "ann@example.com", "description": "Unique"});
    let account = || {
        [
            text(&EMAIL, email.clone()),
            plain(&FIRST_NAME, "Ann"),
            plain(&LAST_NAME, "Lee"),
        ]
    };
    let [email, first_name, last_name] = account();
    let registration = [
        text(&USERNAME, username),
        new_password(&PASSWORD),
        new_password(&PASSWORD_CONFIRMATION),
        email,
        first_name,
        last_name,
    ];
    let credentials = [
        plain(&CREDENTIALS_USERNAME, "ann"),
        password(&CREDENTIALS_PASSWORD),
    ];
    let password_change = [
        password(&CURRENT_PASSWORD),
        new_password(&PASSWORD),
        new_password(&PASSWORD_CONFIRMATION),
    ];
    let movie = || {
        [
            plain(&TITLE, "Heat"),
            plain(&GENRE, "Crime"),
            (YEAR, integer()),
        ]
    };
    let refresh = [text(&REFRESH, json!({}))];
    let token = [text(&TOKEN, json!({}))];
    let confirmation = [password(&CURRENT_PASSWORD)];
    members([
        ("Registration", object("A new account", 4, registration)),
        (
            "Credentials",
            object("Username and password", 2, credentials),
        ),
        ("RefreshToken", object("A refresh token", 1, refresh)),
        ("Token", object("A token of any type", 1, token)),
        (
            "AccountFields",
            object("The fields of your account", 1, account()),
        ),
        (
            "AccountChanges",
            object("The fields of your account to change", 0, account()),
        ),
        (
            "CurrentPassword",
            object("Your password, as a confirmation", 1, confirmation),
        ),
        (
            "PasswordChange",
            object("Your password and the new one", 3, password_change),
        ),
        ("MovieFields", object("All fields of a movie", 3, movie())),
        (
            "MovieChanges",
            object("The fields of a movie to change", 0, movie()),
        ),
    ])
}

/// An object of whose fields the first `required` ones are required.
fn object<const FIELDS: usize>(
    description: &str,
    required: usize,
    fields: [(&str, Value); FIELDS],
) -> Value {
    let names = fields.iter().take(required).map(|(name, _)| *name);
    let names: Vec<&str> = names.collect();
    let mut schema = members([
        ("type", "object".into()),
        ("description", description.into()),
        ("properties", members(fields).into()),
    ]);
    if !names.is_empty() {
        schema.insert("required".to_owned(), names.into());
    }
    schema.into()
}

/// A field of text, which also accepts a number, and its schema. `overrides` adds keywords or replaces them.
fn text(field: &CharField, overrides: Value) -> (&'static str, Value) {
    let mut schema = members([("type", json!(["string", "number"]))]);
    if field.allow_blank {
        schema.insert("pattern".to_owned(), NO_NULL_CHARACTERS.into());
    } else {
        schema.insert("minLength".to_owned(), 1.into());
        schema.insert("pattern".to_owned(), NOT_BLANK.into());
    }
    if let Some(length) = field.max_length {
        schema.insert("maxLength".to_owned(), length.into());
    }
    if let Value::Object(overrides) = overrides {
        schema.extend(overrides);
    }
    (field.name, schema.into())
}

fn integer() -> Value {
    let number =
        json!({"type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX});
    json!({"anyOf": [number, {"type": "string", "pattern": INTEGER_TEXT}], "example": 1995})
}

/// The parameters in an operation's path and query.
pub fn parameters(entry: &RouteEntry, operation: &Operation) -> Value {
    if entry.path.contains("{id}") {
        return json!([{"name": "id", "in": "path", "required": true, "schema": {"type": "integer", "minimum": 0}}]);
    }
    if operation.id != "list_movies" {
        return json!([]);
    }
    let parameter = |name: &str, description: String, schema: Value| json!({"name": name, "in": "query", "description": description, "schema": schema});
    let char_filter = |name| {
        let schema = json!({"type": "string", "pattern": NO_NULL_CHARACTERS});
        parameter(name, "Contains this text, ignoring case".to_owned(), schema)
    };
    let number_filter = |name, description: &str| {
        let schema = json!({"anyOf": [{"type": "number"}, {"type": "string", "maxLength": 0}]});
        parameter(name, description.to_owned(), schema)
    };
    let page = json!({"type": "string", "pattern": "^([1-9][0-9]*|last)?$"});
    let size = json!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE}, {"type": "string"}]});
    let sizes = format!(
        "1 to {MAX_PAGE_SIZE}; a larger number means {MAX_PAGE_SIZE}, anything else {DEFAULT_PAGE_SIZE}"
    );
    json!([
        parameter(
            "page",
            "A number from 1, or `last`; 1 if empty".to_owned(),
            page
        ),
        parameter("page_size", sizes, size),
        char_filter("title"),
        char_filter("genre"),
        char_filter("creator__username"),
        number_filter("year", "This year"),
        number_filter("year__gt", "After this year"),
        number_filter("year__lt", "Before this year"),
    ])
}
