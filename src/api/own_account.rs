//! The account of the signed-in user: show, change and delete it, and change its password.
use rouille::{Request, Response};
use secrecy::{ExposeSecret, SecretString};

use super::account_fields::{
    CURRENT_PASSWORD, EMAIL, FIRST_NAME, LAST_NAME, PASSWORD, PASSWORD_CONFIRMATION,
};
use super::accounts::{GuessLimits, TAKEN_EMAIL, find_taken, token_pair_response};
use super::error::ApiError;
use super::validation::body::parse_body;
use super::validation::fields::Serializer;
use super::{HandlerResult, RequestContext, json_response};
use crate::auth::password::HashingPermit;
use crate::db::account_deletion;
use crate::db::users::{self, AccountChanges};

/// `GET auth/user/`.
pub fn read_account(_: &Request, context: &RequestContext) -> HandlerResult {
    let (account, _) = users::find_account(context.database(), context.requester()?)?;
    Ok(json_response(200, &account))
}

/// `PUT auth/user/`: changes the fields that are sent; the address is required.
///
/// # Errors
/// 400 for invalid fields, and for an address that another user has.
pub fn replace_account(request: &Request, context: &RequestContext) -> HandlerResult {
    change_account(request, context, false)
}

/// `PATCH auth/user/`: as [`replace_account`], but the address is not required.
pub fn update_account(request: &Request, context: &RequestContext) -> HandlerResult {
    change_account(request, context, true)
}

fn change_account(request: &Request, context: &RequestContext, partial: bool) -> HandlerResult {
    let requester = context.requester()?;
    let data = context.check_user_before_error(parse_body(request))?;
    let mut serializer = Serializer::new(&data, partial);
    let changes = AccountChanges {
        email: serializer.text(&EMAIL),
        first_name: serializer.text(&FIRST_NAME),
        last_name: serializer.text(&LAST_NAME),
    };
    if !serializer.errors.is_empty() {
        let (account, _) = users::find_account(context.database(), requester)?;
        let new_email = changes.email.filter(|email| *email != account.email);
        let errors = serializer.errors;
        let errors = find_taken(context.database(), errors, None, new_email.as_deref())?;
        return Err(ApiError::Fields(errors));
    }
    let account = users::update_account(context.database(), requester, changes)?;
    let account = account.ok_or_else(|| ApiError::of_field("email", TAKEN_EMAIL))?;
    Ok(json_response(200, &account))
}

/// `DELETE auth/user/`: deletes the account and all its movies, if the current password is sent with the request.
///
/// # Errors
/// 400 for a wrong password, 429 for too many wrong ones, 503 if too many passwords wait for a core.
pub fn delete_account(request: &Request, context: &RequestContext) -> HandlerResult {
    let requester = context.requester()?;
    let data = context.check_user_before_error(parse_body(request))?;
    let mut serializer = Serializer::new(&data, false);
    drop(verify_password(request, context, &mut serializer)?);
    serializer.errors.into_result()?;
    let generation = Some(requester.token_generation);
    if account_deletion::delete(context.database(), requester.user_id, generation)?.is_none() {
        // Another request deleted the account or revoked the token meanwhile.
        users::find_active(context.database(), requester)?;
        return Err(ApiError::UserNotFound);
    }
    Ok(Response::empty_204())
}

/// `POST auth/password/`: sets a new password and returns a new pair of tokens. All tokens that the user had before are
/// refused from then on.
///
/// # Errors
/// 400 for invalid fields and a wrong current password, 401 if another request changed the password meanwhile, 429 for too
/// many wrong passwords, 503 if too many passwords wait for a core.
pub fn change_password(request: &Request, context: &RequestContext) -> HandlerResult {
    let requester = context.requester()?;
    let data = context.check_user_before_error(parse_body(request))?;
    let mut serializer = Serializer::new(&data, false);
    let permit = verify_password(request, context, &mut serializer)?;
    let password = serializer.text(&PASSWORD);
    let confirmation = serializer.text(&PASSWORD_CONFIRMATION);
    let mut errors = serializer.errors;
    if errors.is_empty() && password != confirmation {
        errors.add("password", vec!["Password fields didn't match.".into()]);
    }
    let (Some(permit), Some(password), true) = (permit, password, errors.is_empty()) else {
        return Err(ApiError::Fields(errors));
    };
    let new_hash = permit.hash(SecretString::from(password).expose_secret())?;
    drop(permit);
    let generation = users::change_password(context.database(), requester, &new_hash)?;
    token_pair_response(context.state, requester.user_id, generation)
}

/// Validates the field `current_password`, and returns the permit that verified it; `None` if the field is invalid or wrong.
/// Wrong ones count as failed sign-ins of the account.
fn verify_password<'a>(
    request: &Request,
    context: &RequestContext<'a>,
    serializer: &mut Serializer,
) -> Result<Option<HashingPermit<'a>>, ApiError> {
    let state = context.state;
    let (account, hash) = users::find_account(context.database(), context.requester()?)?;
    let Some(password) = serializer.text(&CURRENT_PASSWORD).map(SecretString::from) else {
        return Ok(None);
    };
    let limits = GuessLimits::new(request, state, &account.username);
    limits.check()?;
    let permit = state.hasher.acquire(context.deadline)?;
    let is_correct = permit.verify(password.expose_secret(), Some(&hash));
    limits.record(is_correct)?;
    if !is_correct {
        let message = "Invalid password.".into();
        serializer.errors.add("current_password", vec![message]);
    }
    Ok(is_correct.then_some(permit))
}
