//! A registration: its fields judged, those that are taken named, the account made. For the endpoint, and for operators,
//! who are held to the same rules in the same words.
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use utoipa::ToSchema;

use super::account::{EMAIL, FIRST_NAME, LAST_NAME, PASSWORD, PASSWORD_AGAIN, USERNAME};
use super::body::{Fields, Value};
use super::error::{Error, FieldErrors};
use super::fields::{Presence, Reader};
use crate::auth::password::Hasher;
use crate::db::RequestDatabase;
use crate::db::users::{self, NewUser, TakenFields};

/// The order in which a refusal names the fields.
const REGISTER_FIELDS: [&str; 6] = [
    "username",
    "password",
    "password2",
    "email",
    "first_name",
    "last_name",
];

/// Fields that are good, and were free when they were judged.
pub(super) struct Registration {
    username: String,
    password: SecretString,
    email: String,
    first_name: String,
    last_name: String,
}

/// A user who was just made.
#[derive(Serialize, ToSchema)]
pub struct RegisteredUser {
    /// The new id.
    #[schema(example = 1)]
    pub id: i64,
    #[schema(example = "ann")]
    username: String,
    #[schema(example = "ann@example.com")]
    email: String,
    #[schema(example = "Ann")]
    first_name: String,
    #[schema(example = "Lee")]
    last_name: String,
}

/// Makes the account that an operator describes, judged as a registration with these fields.
///
/// # Errors
/// [`Error::Fields`] with all that is wrong or taken.
pub fn register_account(
    texts: &[(&str, &str)],
    access: RequestDatabase,
    hasher: &Hasher,
) -> Result<RegisteredUser, Error> {
    create_user(judge_fields(&fields_of(texts), access)?, access, hasher)
}

/// The password as it is kept: trimmed, and judged as one in a registration.
///
/// # Errors
/// [`Error::Fields`] with its weaknesses.
pub fn judge_password(password: &str) -> Result<SecretString, Error> {
    let fields = fields_of(&[("password", password)]);
    let mut reader = Reader::new(&fields);
    let judged = reader.text(&PASSWORD, Presence::Required);
    reader.errors.into_result()?;
    Ok(judged.unwrap_or_default().into())
}

fn fields_of(texts: &[(&str, &str)]) -> Fields {
    let texts = texts.iter();
    texts
        .map(|(name, text)| ((*name).to_owned(), Value::Text((*text).to_owned())))
        .collect()
}

/// The registration that these fields describe.
///
/// # Errors
/// [`Error::Fields`] with all that is wrong or taken.
pub(super) fn judge_fields(
    fields: &Fields,
    access: RequestDatabase,
) -> Result<Registration, Error> {
    let mut reader = Reader::new(fields);
    let username = reader.text(&USERNAME, Presence::Required);
    let password = reader.text(&PASSWORD, Presence::Required);
    let password_again = reader.text(&PASSWORD_AGAIN, Presence::Required);
    let email = reader.text(&EMAIL, Presence::Required);
    let first_name = reader.text(&FIRST_NAME, Presence::Optional);
    let last_name = reader.text(&LAST_NAME, Presence::Optional);
    let is_whole = reader.errors.is_empty() && password == password_again;
    match (username, password, email) {
        (Some(username), Some(password), Some(email)) if is_whole => Ok(Registration {
            username,
            password: password.into(),
            email,
            first_name: first_name.unwrap_or_default(),
            last_name: last_name.unwrap_or_default(),
        }),
        (username, _, email) => Err(refuse_registration(
            access,
            reader.errors,
            username.as_deref(),
            email.as_deref(),
        )?),
    }
}

/// Makes the account.
///
/// # Errors
/// [`Error::Fields`] if another took a field meanwhile.
pub(super) fn create_user(
    asked: Registration,
    access: RequestDatabase,
    hasher: &Hasher,
) -> Result<RegisteredUser, Error> {
    let user = NewUser {
        username: &asked.username,
        email: &asked.email,
        password_hash: &hasher.hash(asked.password.expose_secret(), access.deadline())?,
        first_name: &asked.first_name,
        last_name: &asked.last_name,
    };
    match users::create(access, &user)? {
        Ok(id) => Ok(RegisteredUser {
            id,
            username: asked.username,
            email: asked.email,
            first_name: asked.first_name,
            last_name: asked.last_name,
        }),
        Err(taken) => Err(Error::Fields(add_taken(FieldErrors::default(), taken))),
    }
}

/// All that is wrong with a registration: bad fields and taken ones; passwords that differ only if nothing else is.
fn refuse_registration(
    access: RequestDatabase,
    errors: FieldErrors,
    username: Option<&str>,
    email: Option<&str>,
) -> Result<Error, Error> {
    let taken = match (username, email) {
        (None, None) => TakenFields::default(),
        _ => users::find_taken(access, username, email)?,
    };
    let mut errors = add_taken(errors, taken);
    if errors.is_empty() {
        errors.add("password", vec!["Password fields didn't match.".into()]);
    }
    Ok(Error::Fields(errors))
}

fn add_taken(mut errors: FieldErrors, taken: TakenFields) -> FieldErrors {
    if taken.username {
        errors.add(
            "username",
            vec!["A user with that username already exists.".into()],
        );
    }
    if taken.email {
        errors.add("email", vec!["This field must be unique.".into()]);
    }
    errors.sort(&REGISTER_FIELDS);
    errors
}
