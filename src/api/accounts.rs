//! Accounts: register, sign in. Operators create accounts by the same rules, through
//! [`register_account`] and [`validate_password`].
use std::error::Error;
use std::net::IpAddr;
use std::time::Instant;

use rouille::Request;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use utoipa::ToSchema;

use super::account_fields::{
    CREDENTIALS_PASSWORD, CREDENTIALS_USERNAME, EMAIL, FIRST_NAME, LAST_NAME, PASSWORD,
    PASSWORD_CONFIRMATION, USERNAME,
};
use super::error::{ApiError, FieldErrors};
use super::forwarded::client_ip;
use super::validation::body::{BodyData, BodyValue, parse_body};
use super::validation::fields::{Serializer, parse_text};
use super::{AppState, HandlerResult, RequestContext, json_response};
use crate::auth::bcrypt_cost::MAX_HASH_DURATION;
use crate::auth::password::{self, Hasher, HashingPermit};
use crate::auth::throttle::Throttled;
use crate::db::RequestDatabase;
use crate::db::users::{self, Credentials, NewUser, TakenFields};

/// The message for an address that another user has.
pub const TAKEN_EMAIL: &str = "This field must be unique.";

/// The order in which validation errors name the fields of a registration.
const REGISTRATION_FIELDS: [&str; 6] = [
    "username",
    "password",
    "password2",
    "email",
    "first_name",
    "last_name",
];

/// The response to a registration.
#[derive(Serialize, ToSchema)]
pub struct RegisteredUser {
    /// The new user's id.
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

/// `POST auth/register/`: creates an account. A valid registration takes one statement; an invalid one takes another to
/// name the fields whose value is taken.
///
/// # Errors
/// 400 for invalid fields, 429 for too many registrations from one address, 503 if too many passwords wait for a core.
pub fn register(request: &Request, context: &RequestContext) -> HandlerResult {
    let state = context.state;
    let limit = || {
        let client = client_ip(request, &state.trusted_proxies);
        state.registrations.record(client, Instant::now())
    };
    let data = parse_body(request)?;
    let user = create_account(&data, context.database(), &state.hasher, limit)?;
    Ok(json_response(201, &user))
}

/// Creates an account from an operator's input, by the rules of a registration.
///
/// # Errors
/// `ApiError::Fields` with all validation errors.
pub fn register_account(
    fields: &[(&str, &str)],
    database: RequestDatabase,
    hasher: &Hasher,
) -> Result<RegisteredUser, ApiError> {
    create_account(&body_data(fields), database, hasher, || Ok(()))
}

/// Validates a password by the rules of a registration, and returns it trimmed.
///
/// # Errors
/// `ApiError::Fields` with its validation errors.
pub fn validate_password(password: &str) -> Result<SecretString, ApiError> {
    let password = parse_text(&body_data(&[("password", password)]), &PASSWORD)?;
    Ok(password.into())
}

fn body_data(fields: &[(&str, &str)]) -> BodyData {
    let fields = fields.iter();
    fields
        .map(|(name, text)| ((*name).to_owned(), BodyValue::Text((*text).to_owned())))
        .collect()
}

/// `limit` is called once all fields are valid. Username and email may be taken meanwhile.
fn create_account(
    data: &BodyData,
    database: RequestDatabase,
    hasher: &Hasher,
    limit: impl FnOnce() -> Result<(), Throttled>,
) -> Result<RegisteredUser, ApiError> {
    let mut serializer = Serializer::new(data, false);
    let username = serializer.text(&USERNAME);
    let password = serializer.text(&PASSWORD);
    let confirmation = serializer.text(&PASSWORD_CONFIRMATION);
    let email = serializer.text(&EMAIL);
    let first_name = serializer.text(&FIRST_NAME).unwrap_or_default();
    let last_name = serializer.text(&LAST_NAME).unwrap_or_default();
    if !serializer.errors.is_empty() || password != confirmation {
        let (username, email) = (username.as_deref(), email.as_deref());
        let mut errors = find_taken(database, serializer.errors, username, email)?;
        // Only if all fields are valid, as the framework's `validate` method of a whole serializer.
        if errors.is_empty() {
            errors.add("password", vec!["Password fields didn't match.".into()]);
        }
        return Err(ApiError::Fields(errors));
    }
    limit()?;
    let (username, email) = (username.unwrap_or_default(), email.unwrap_or_default());
    let password = SecretString::from(password.unwrap_or_default());
    let user = NewUser {
        username: &username,
        email: &email,
        password_hash: &hasher.hash(password.expose_secret(), database.deadline())?,
        first_name: &first_name,
        last_name: &last_name,
    };
    match users::create(database, &user)? {
        Ok(id) => Ok(RegisteredUser {
            id,
            username,
            email,
            first_name,
            last_name,
        }),
        Err(taken) => Err(ApiError::Fields(add_taken(FieldErrors::default(), taken))),
    }
}

/// Adds the errors of values that another user has. A value that is `None` is not looked up.
pub fn find_taken(
    database: RequestDatabase,
    errors: FieldErrors,
    username: Option<&str>,
    email: Option<&str>,
) -> Result<FieldErrors, ApiError> {
    if username.is_none() && email.is_none() {
        return Ok(errors);
    }
    Ok(add_taken(
        errors,
        users::find_taken(database, username, email)?,
    ))
}

fn add_taken(mut errors: FieldErrors, taken: TakenFields) -> FieldErrors {
    if taken.username {
        let message = "A user with that username already exists.";
        errors.add("username", vec![message.into()]);
    }
    if taken.email {
        errors.add("email", vec![TAKEN_EMAIL.into()]);
    }
    errors.sort(&REGISTRATION_FIELDS);
    errors
}

/// The response to a sign-in, and to a change of the password.
#[derive(Serialize, ToSchema)]
pub struct TokenPair {
    /// For `refresh_token`.
    #[schema(example = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2lnbmVk")]
    refresh: String,
    /// For the movies and the account.
    #[schema(example = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2lnbmVk")]
    access: String,
}

/// `POST auth/token/`: signs a user in.
///
/// A client cannot tell an unknown username, a wrong password and an inactive user apart: the response, its duration and the
/// count of failures are the same.
///
/// # Errors
/// 401 for wrong credentials, 429 for too many failures, 503 if too many passwords wait for a core.
pub fn obtain_token(request: &Request, context: &RequestContext) -> HandlerResult {
    let state = context.state;
    let data = parse_body(request)?;
    let mut serializer = Serializer::new(&data, false);
    let username = serializer.text(&CREDENTIALS_USERNAME).unwrap_or_default();
    let password = serializer.text(&CREDENTIALS_PASSWORD).unwrap_or_default();
    let password = SecretString::from(password);
    serializer.errors.into_result()?;
    let limits = GuessLimits::new(request, state, &username);
    limits.check()?;
    let user = users::find_credentials(context.database(), &username)?;
    let stored_hash = user.as_ref().map(|user| user.password_hash.as_str());
    let permit = state.hasher.acquire(context.deadline)?;
    let is_correct = permit.verify(password.expose_secret(), stored_hash);
    let user = user.filter(|user| is_correct && user.is_active);
    limits.record(user.is_some())?;
    let user = user.ok_or(ApiError::WrongCredentials)?;
    if let Err(error) = rehash(context, permit, &user, &password) {
        let id = user.id;
        log::warn!("cannot replace the imported password hash of user {id}: {error}");
    }
    token_pair_response(state, user.id, user.token_generation)
}

/// The limits on wrong passwords for one account from one client. They are checked before a password is verified and again
/// afterwards, so that of many guesses sent at once those past a limit learn nothing.
pub struct GuessLimits<'a> {
    state: &'a AppState,
    client: IpAddr,
    username: &'a str,
}

impl<'a> GuessLimits<'a> {
    pub fn new(request: &Request, state: &'a AppState, username: &'a str) -> GuessLimits<'a> {
        GuessLimits {
            state,
            client: client_ip(request, &state.trusted_proxies),
            username,
        }
    }

    /// # Errors
    /// If a limit is reached: then the password must not be verified.
    pub fn check(&self) -> Result<(), Throttled> {
        let (account, now) = ((self.client, self.username), Instant::now());
        self.state.address_failures.check(self.client, now)?;
        self.state.account_failures.check(account, now)
    }

    /// Records a wrong password. A correct one resets the count of the account.
    ///
    /// # Errors
    /// If other guesses reached a limit meanwhile: then the client must not learn whether this one was correct.
    pub fn record(&self, is_correct: bool) -> Result<(), Throttled> {
        let (account, now) = ((self.client, self.username), Instant::now());
        if is_correct {
            self.state.address_failures.check(self.client, now)?;
            self.state.account_failures.reset(account, now)
        } else {
            self.state.address_failures.record(self.client, now)?;
            self.state.account_failures.record(account, now)
        }
    }
}

/// Issues a pair of tokens of the generation.
pub fn token_pair_response(state: &AppState, user_id: i64, generation: i64) -> HandlerResult {
    let (refresh, access) = state.token_keys.issue_pair(user_id, generation)?;
    Ok(json_response(200, &TokenPair { refresh, access }))
}

/// Replaces a hash that Django's PBKDF2 made by one of bcrypt, now that the password is known, with the permit that verified
/// it. An error does not fail the sign-in: a later one tries again, as it does if too little time is left.
fn rehash(
    context: &RequestContext,
    permit: HashingPermit,
    user: &Credentials,
    password: &SecretString,
) -> Result<(), Box<dyn Error>> {
    let has_time = Instant::now() + MAX_HASH_DURATION < context.deadline;
    if has_time && password::needs_rehash(&user.password_hash) {
        let new_hash = permit.hash(password.expose_secret())?;
        drop(permit);
        let old_hash = Some(user.password_hash.as_str());
        users::set_password_hash(context.database(), user.id, &new_hash, old_hash)?;
    }
    Ok(())
}
