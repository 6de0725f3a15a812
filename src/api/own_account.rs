//! The account of the signed-in user: show, change and delete it, and change its password.
use rouille::{Request, Response};
use secrecy::{ExposeSecret, SecretString};

use super::account_fields::{
    CURRENT_PASSWORD, EMAIL, FIRST_NAME, LAST_NAME, PASSWORD, PASSWORD_CONFIRMATION,
};
use super::accounts::{GuessLimits, add_taken, token_pair_response};
use super::error::{ApiError, FieldErrors};
use super::validation::body::{BodyData, parse_body};
use super::validation::fields::Serializer;
use super::{RequestContext, json_response};
use crate::auth::password::HashingPermit;
use crate::db::account_deletion;
use crate::db::users::{self, Account, AccountChanges, TakenFields};

/// The order in which validation errors name the fields of a change of the password.
const PASSWORD_FIELDS: [&str; 3] = ["current_password", "password", "password2"];

/// `GET auth/user/`.
///
/// # Errors
/// Only those of authentication.
pub fn read_account(_: &Request, context: &RequestContext) -> Result<Response, ApiError> {
    let (account, _) = users::find_account(context.database(), context.requester()?)?;
    Ok(json_response(200, &account))
}

/// `PUT auth/user/`: changes the fields that are sent; the address is required.
///
/// # Errors
/// 400 for invalid fields, and for an address that another user has.
pub fn replace_account(request: &Request, context: &RequestContext) -> Result<Response, ApiError> {
    change_account(request, context, false)
}

/// `PATCH auth/user/`: changes the fields that are sent.
///
/// # Errors
/// As [`replace_account`].
pub fn update_account(request: &Request, context: &RequestContext) -> Result<Response, ApiError> {
    change_account(request, context, true)
}

fn change_account(
    request: &Request,
    context: &RequestContext,
    partial: bool,
) -> Result<Response, ApiError> {
    let requester = context.requester()?;
    let data = match parse_body(request) {
        Ok(data) => data,
        Err(error) => {
            users::find_active(context.database(), requester)?;
            return Err(error);
        }
    };
    let mut serializer = Serializer::new(&data, partial);
    let changes = AccountChanges {
        email: serializer.text(&EMAIL),
        first_name: serializer.text(&FIRST_NAME),
        last_name: serializer.text(&LAST_NAME),
    };
    if !serializer.errors.is_empty() {
        return Err(account_error(context, serializer.errors, changes.email)?);
    }
    match users::update_account(context.database(), requester, changes)? {
        Some(account) => Ok(json_response(200, &account)),
        None => Err(ApiError::Fields(add_taken(
            FieldErrors::default(),
            TakenFields {
                email: true,
                username: false,
            },
        ))),
    }
}

/// All errors of invalid changes, including an address that another user has.
fn account_error(
    context: &RequestContext,
    errors: FieldErrors,
    email: Option<String>,
) -> Result<ApiError, ApiError> {
    let (account, _) = users::find_account(context.database(), context.requester()?)?;
    let other_email = email.filter(|email| *email != account.email);
    let taken = match &other_email {
        Some(email) => users::find_taken(context.database(), None, Some(email))?,
        None => TakenFields::default(),
    };
    Ok(ApiError::Fields(add_taken(errors, taken)))
}

/// `DELETE auth/user/`: deletes the account and all its movies, if the current password is sent with the request.
///
/// # Errors
/// 400 for a wrong password, 429 for too many wrong ones, 503 if too many passwords wait for a core.
pub fn delete_account(request: &Request, context: &RequestContext) -> Result<Response, ApiError> {
    let requester = context.requester()?;
    let (account, hash) = users::find_account(context.database(), requester)?;
    let data = parse_body(request)?;
    let mut serializer = Serializer::new(&data, false);
    let password = serializer.text(&CURRENT_PASSWORD).map(SecretString::from);
    let mut errors = serializer.errors;
    if let Some(password) = password
        && verify_password(request, context, &account, &hash, &password)?.is_none()
    {
        errors.add("current_password", vec!["Invalid password.".into()]);
    }
    errors.into_result()?;
    let generation = Some(requester.token_generation);
    match account_deletion::delete(context.database(), requester.user_id, generation)? {
        Some(_) => Ok(Response::empty_204()),
        // Another request deleted the account or revoked the token meanwhile.
        None => {
            users::find_active(context.database(), requester)?;
            Err(ApiError::UserNotFound)
        }
    }
}

/// `POST auth/password/`: sets a new password and returns a new pair of tokens. All tokens that the user had before are
/// refused from then on.
///
/// # Errors
/// 400 for invalid fields and a wrong current password, 401 if another request changed the password meanwhile, 429 for too
/// many wrong passwords, 503 if too many passwords wait for a core.
pub fn change_password(request: &Request, context: &RequestContext) -> Result<Response, ApiError> {
    let requester = context.requester()?;
    let (account, hash) = users::find_account(context.database(), requester)?;
    let data = parse_body(request)?;
    let (permit, password) = validate_change(request, context, &account, &hash, &data)?;
    let new_hash = permit.hash(password.expose_secret())?;
    drop(permit);
    let generation = users::change_password(context.database(), requester, &new_hash)?;
    token_pair_response(context.state, requester.user_id, generation)
}

/// Returns the new password, and the permit that verified the current one.
fn validate_change<'a>(
    request: &Request,
    context: &RequestContext<'a>,
    account: &Account,
    hash: &str,
    data: &BodyData,
) -> Result<(HashingPermit<'a>, SecretString), ApiError> {
    let mut serializer = Serializer::new(data, false);
    let current = serializer.text(&CURRENT_PASSWORD).map(SecretString::from);
    let password = serializer.text(&PASSWORD);
    let confirmation = serializer.text(&PASSWORD_CONFIRMATION);
    let mut errors = serializer.errors;
    let mut permit = None;
    if let Some(current) = current {
        permit = verify_password(request, context, account, hash, &current)?;
        if permit.is_none() {
            errors.add("current_password", vec!["Invalid password.".into()]);
            errors.sort(&PASSWORD_FIELDS);
        }
    }
    if errors.is_empty() && password != confirmation {
        errors.add("password", vec!["Password fields didn't match.".into()]);
    }
    match (permit, password) {
        (Some(permit), Some(password)) if errors.is_empty() => Ok((permit, password.into())),
        _ => Err(ApiError::Fields(errors)),
    }
}

/// Verifies the current password of an account; `None` if it is wrong. Wrong ones count as failed sign-ins of the account.
fn verify_password<'a>(
    request: &Request,
    context: &RequestContext<'a>,
    account: &Account,
    hash: &str,
    password: &SecretString,
) -> Result<Option<HashingPermit<'a>>, ApiError> {
    let state = context.state;
    let limits = GuessLimits::new(request, state, &account.username);
    limits.check()?;
    let permit = state.hasher.acquire(context.deadline)?;
    if permit.verify(password.expose_secret(), Some(hash)) {
        limits.record_success()?;
        Ok(Some(permit))
    } else {
        limits.record_failure()?;
        Ok(None)
    }
}
