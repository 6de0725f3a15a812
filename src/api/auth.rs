//! Accounts and tokens: register, obtain a pair of tokens, refresh the access token.
use std::time::Instant;

use rouille::{Request, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::account::{REFRESH, SIGN_IN_NAME, SIGN_IN_PASSWORD};
use super::error::Error;
use super::fields::{Presence, Reader};
use super::registration::{create_user, judge_fields};
use super::{Context, answer_json, authenticate_if_present, body, forwarded};
use crate::auth::bcrypt_cost::MAX_HASH_DURATION;
use crate::auth::password;
use crate::auth::password::Core;
use crate::auth::token::{Kind, Subject};
use crate::db;
use crate::db::users::{self, Credentials};

/// `POST auth/register/`: makes an account. One statement where all is well; a refusal costs one to name the
/// fields that are taken.
pub fn register(request: &Request, context: &Context) -> Result<Response, Error> {
    authenticate_if_present(request, context)?;
    let fields = body::read_fields(request)?;
    let asked = judge_fields(&fields, context.store())?;
    let client = forwarded::find_client(request, &context.app.trusted_proxies);
    context.app.registrations.count(client, Instant::now())?;
    let user = create_user(asked, context.store(), &context.app.hasher)?;
    Ok(answer_json(201, &user))
}

#[derive(Serialize, ToSchema)]
pub struct TokenPair {
    /// For `refresh_token`.
    #[schema(example = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2lnbmVk")]
    refresh: String,
    /// For the movies.
    #[schema(example = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2lnbmVk")]
    access: String,
}

/// `POST auth/token/`: signs a user in. Unknown, wrong and inactive are told alike, take alike and are counted alike.
/// Who has failed too often is refused before the password is looked at. The verdict on it is given only where the bound
/// still holds: of guesses that came at once, those past it learn nothing.
pub fn obtain_token(request: &Request, context: &Context) -> Result<Response, Error> {
    let fields = body::read_fields(request)?;
    let mut reader = Reader::new(&fields);
    let username = reader.text(&SIGN_IN_NAME, Presence::Required);
    let password = reader.text(&SIGN_IN_PASSWORD, Presence::Required);
    reader.errors.into_result()?;
    let (username, password) = (username.unwrap_or_default(), password.unwrap_or_default());
    let client = forwarded::find_client(request, &context.app.trusted_proxies);
    let account = (client, &username);
    context.app.address_failures.check(client, Instant::now())?;
    context
        .app
        .account_failures
        .check(account, Instant::now())?;
    let credentials = users::find_credentials(context.store(), &username)?;
    let stored = credentials
        .as_ref()
        .map(|known| known.password_hash.as_str());
    let core = context.app.hasher.acquire_core(context.deadline)?;
    let is_right = core.verify(&password, stored);
    let now = Instant::now();
    match credentials {
        Some(user) if is_right && user.is_active => {
            context.app.address_failures.check(client, now)?;
            context.app.account_failures.forget(account, now)?;
            let hash = replace_foreign_hash(&core, &user, &password, context.deadline);
            drop(core);
            if let Some(hash) = hash {
                store_hash(context, &user, &hash);
            }
            let (refresh, access) = context
                .app
                .keys
                .issue_pair(user.id)
                .map_err(signing_fault)?;
            Ok(answer_json(200, &TokenPair { refresh, access }))
        }
        _ => {
            context.app.address_failures.count(client, now)?;
            context.app.account_failures.count(account, now)?;
            Err(Error::WrongCredentials)
        }
    }
}

/// A hash of ours in place of an imported one, now that the password is at hand, on the core that verified it. None where
/// too little time is left for it: the next sign-in tries again.
fn replace_foreign_hash(
    core: &Core,
    user: &Credentials,
    password: &str,
    deadline: Instant,
) -> Option<String> {
    let has_time = Instant::now() + MAX_HASH_DURATION < deadline;
    if !has_time || !password::is_foreign(&user.password_hash) {
        return None;
    }
    let hash = core.hash(password);
    hash.inspect_err(|error| warn_of_kept_hash(user, error))
        .ok()
}

/// The sign-in itself does not fail by this: the next one tries again.
fn store_hash(context: &Context, user: &Credentials, hash: &str) {
    let former = Some(user.password_hash.as_str());
    if let Err(error) = users::set_password_hash(context.store(), user.id, hash, former) {
        warn_of_kept_hash(user, &error);
    }
}

fn warn_of_kept_hash(user: &Credentials, error: &dyn std::error::Error) {
    log::warn!("the imported hash of user {} stays: {error}", user.id);
}

#[derive(Serialize, ToSchema)]
pub struct AccessToken {
    #[schema(example = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2lnbmVk")]
    access: String,
}

/// `POST auth/refresh/`: a new access token for a refresh token whose user may still sign in. A token without a
/// user, or for nobody, yields one alike, as SimpleJWT does.
pub fn refresh_token(request: &Request, context: &Context) -> Result<Response, Error> {
    let fields = body::read_fields(request)?;
    let mut reader = Reader::new(&fields);
    let refresh = reader.text(&REFRESH, Presence::Required);
    reader.errors.into_result()?;
    let claims = context
        .app
        .keys
        .check(&refresh.unwrap_or_default(), Kind::Refresh)
        .map_err(Error::RefreshToken)?;
    match claims.subject() {
        Subject::Absent | Subject::Nobody => {}
        Subject::Unreadable => return Err(Error::NoActiveAccount),
        Subject::User(id) => {
            users::find_active(context.store(), id).map_err(|error| match error {
                db::Error::UnknownUser | db::Error::InactiveUser => Error::NoActiveAccount,
                error => error.into(),
            })?
        }
    }
    let access = context
        .app
        .keys
        .issue_access(claims)
        .map_err(signing_fault)?;
    Ok(answer_json(200, &AccessToken { access }))
}

fn signing_fault(error: jsonwebtoken::errors::Error) -> Error {
    Error::Fault(format!("signing a token: {error}"))
}
