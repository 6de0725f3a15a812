//! Accounts and tokens: register, obtain a pair of tokens, refresh the access token.
use std::time::Instant;

use rouille::{Request, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::account::{
    EMAIL, FIRST_NAME, LAST_NAME, PASSWORD, PASSWORD_AGAIN, REFRESH, SIGN_IN_NAME,
    SIGN_IN_PASSWORD, USERNAME,
};
use super::error::{Error, FieldErrors};
use super::fields::{Presence, Reader};
use super::{App, answer_json, authenticate_if_present, body, proxy};
use crate::store;
use crate::store::users::{self, NewUser, Taken};
use crate::token::{Kind, Subject};

/// The order in which a refusal names the fields.
const REGISTER_FIELDS: [&str; 6] = [
    "username",
    "password",
    "password2",
    "email",
    "first_name",
    "last_name",
];

#[derive(Serialize, ToSchema)]
pub struct RegisteredUser<'a> {
    id: i64,
    username: &'a str,
    email: &'a str,
    first_name: &'a str,
    last_name: &'a str,
}

/// `POST auth/register/`: makes an account. One statement where all is well; a refusal costs one to name the
/// fields that are taken.
pub fn register(request: &Request, app: &App) -> Result<Response, Error> {
    authenticate_if_present(request, app)?;
    let fields = body::read_fields(request)?;
    let mut reader = Reader::new(&fields);
    let username = reader.text(&USERNAME, Presence::Required);
    let password = reader.text(&PASSWORD, Presence::Required);
    let password_again = reader.text(&PASSWORD_AGAIN, Presence::Required);
    let email = reader.text(&EMAIL, Presence::Required);
    let first_name = reader
        .text(&FIRST_NAME, Presence::Optional)
        .unwrap_or_default();
    let last_name = reader
        .text(&LAST_NAME, Presence::Optional)
        .unwrap_or_default();
    let (Some(username), Some(password), Some(email), true) = (
        &username,
        &password,
        &email,
        reader.errors.is_empty() && password == password_again,
    ) else {
        return Err(refuse_registration(
            app,
            reader.errors,
            username.as_deref(),
            email.as_deref(),
        )?);
    };
    let client = proxy::find_client(request, &app.trusted_proxies);
    app.registrations.count(client, Instant::now())?;
    let user = NewUser {
        username,
        email,
        password_hash: &app.hasher.hash(password)?,
        first_name: &first_name,
        last_name: &last_name,
    };
    match users::create(&app.store, &user)? {
        Ok(id) => Ok(answer_json(
            201,
            &RegisteredUser {
                id,
                username,
                email,
                first_name: &first_name,
                last_name: &last_name,
            },
        )),
        Err(taken) => Err(Error::Fields(add_taken(FieldErrors::default(), taken))),
    }
}

/// All that is wrong with a registration: bad fields and taken ones; passwords that differ only if nothing else is.
fn refuse_registration(
    app: &App,
    errors: FieldErrors,
    username: Option<&str>,
    email: Option<&str>,
) -> Result<Error, Error> {
    let taken = match (username, email) {
        (None, None) => Taken::default(),
        _ => users::find_taken(&app.store, username, email)?,
    };
    let mut errors = add_taken(errors, taken);
    if errors.is_empty() {
        errors.add("password", vec!["Password fields didn't match.".into()]);
    }
    Ok(Error::Fields(errors))
}

fn add_taken(mut errors: FieldErrors, taken: Taken) -> FieldErrors {
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

#[derive(Serialize, ToSchema)]
pub struct TokenPair {
    refresh: String,
    access: String,
}

/// `POST auth/token/`: signs a user in. Unknown, wrong and inactive are told alike, take alike and are counted alike.
/// Who has failed too often is refused before the password is looked at. The verdict on it is given only where the bound
/// still holds: of guesses that came at once, those past it learn nothing.
pub fn obtain_token(request: &Request, app: &App) -> Result<Response, Error> {
    let fields = body::read_fields(request)?;
    let mut reader = Reader::new(&fields);
    let username = reader.text(&SIGN_IN_NAME, Presence::Required);
    let password = reader.text(&SIGN_IN_PASSWORD, Presence::Required);
    reader.errors.into_result()?;
    let (username, password) = (username.unwrap_or_default(), password.unwrap_or_default());
    let client = proxy::find_client(request, &app.trusted_proxies);
    let account = (client, &username);
    app.address_failures.check(client, Instant::now())?;
    app.account_failures.check(account, Instant::now())?;
    let credentials = users::find_credentials(&app.store, &username)?;
    let stored = credentials
        .as_ref()
        .map(|known| known.password_hash.as_str());
    let is_right = app.hasher.verify(&password, stored)?;
    let now = Instant::now();
    match credentials {
        Some(user) if is_right && user.is_active => {
            app.address_failures.check(client, now)?;
            app.account_failures.forget(account, now)?;
            let (refresh, access) = app.keys.issue_pair(user.id).map_err(signing_fault)?;
            Ok(answer_json(200, &TokenPair { refresh, access }))
        }
        _ => {
            app.address_failures.count(client, now)?;
            app.account_failures.count(account, now)?;
            Err(Error::WrongCredentials)
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct AccessToken {
    access: String,
}

/// `POST auth/refresh/`: a new access token for a refresh token whose user may still sign in. A token without a
/// user yields one without, as SimpleJWT does.
pub fn refresh_token(request: &Request, app: &App) -> Result<Response, Error> {
    let fields = body::read_fields(request)?;
    let mut reader = Reader::new(&fields);
    let refresh = reader.text(&REFRESH, Presence::Required);
    reader.errors.into_result()?;
    let claims = app
        .keys
        .check(&refresh.unwrap_or_default(), Kind::Refresh)
        .map_err(Error::RefreshToken)?;
    match claims.subject() {
        Subject::Absent => {}
        Subject::Unreadable => return Err(Error::NoActiveAccount),
        Subject::User(id) => users::find_active(&app.store, id).map_err(|error| match error {
            store::Error::UnknownUser | store::Error::InactiveUser => Error::NoActiveAccount,
            error => error.into(),
        })?,
    }
    let access = app.keys.issue_access(claims).map_err(signing_fault)?;
    Ok(answer_json(200, &AccessToken { access }))
}

fn signing_fault(error: jsonwebtoken::errors::Error) -> Error {
    Error::Fault(format!("signing a token: {error}"))
}
