//! Accounts: register, sign in. Operators create accounts by the same rules, through
//! [`register_account`] and [`validate_password`].
use std::net::IpAddr;
use std::time::Instant;

use rouille::{Request, Response};
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
use super::validation::fields::Serializer;
use super::{AppState, RequestContext, json_response};
use crate::auth::bcrypt_cost::MAX_HASH_DURATION;
use crate::auth::password::{self, Hasher, HashingPermit};
use crate::auth::throttle::Throttled;
use crate::db::RequestDatabase;
use crate::db::users::{self, Credentials, NewUser, TakenFields};

/// The order in which validation errors name the fields of a registration.
const REGISTRATION_FIELDS: [&str; 6] = [
    "username",
    "password",
    "password2",
    "email",
    "first_name",
    "last_name",
];

/// A registration whose fields are valid. Username and email may be taken meanwhile.
struct Registration {
    username: String,
    password: SecretString,
    email: String,
    first_name: String,
    last_name: String,
}

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
pub fn register(request: &Request, context: &RequestContext) -> Result<Response, ApiError> {
    let data = parse_body(request)?;
    let registration = validate_registration(&data, context.database())?;
    let client = client_ip(request, &context.state.trusted_proxies);
    context.state.registrations.record(client, Instant::now())?;
    let user = create_user(registration, context.database(), &context.state.hasher)?;
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
    let registration = validate_registration(&body_data(fields), database)?;
    create_user(registration, database, hasher)
}

/// Validates a password by the rules of a registration, and returns it trimmed.
///
/// # Errors
/// `ApiError::Fields` with its validation errors.
pub fn validate_password(password: &str) -> Result<SecretString, ApiError> {
    let data = body_data(&[("password", password)]);
    let mut serializer = Serializer::new(&data, false);
    let password = serializer.text(&PASSWORD);
    serializer.errors.into_result()?;
    Ok(password.unwrap_or_default().into())
}

fn body_data(fields: &[(&str, &str)]) -> BodyData {
    let fields = fields.iter();
    fields
        .map(|(name, text)| ((*name).to_owned(), BodyValue::Text((*text).to_owned())))
        .collect()
}

fn validate_registration(
    data: &BodyData,
    database: RequestDatabase,
) -> Result<Registration, ApiError> {
    let mut serializer = Serializer::new(data, false);
    let username = serializer.text(&USERNAME);
    let password = serializer.text(&PASSWORD);
    let confirmation = serializer.text(&PASSWORD_CONFIRMATION);
    let email = serializer.text(&EMAIL);
    let first_name = serializer.text(&FIRST_NAME);
    let last_name = serializer.text(&LAST_NAME);
    let is_valid = serializer.errors.is_empty() && password == confirmation;
    match (username, password, email) {
        (Some(username), Some(password), Some(email)) if is_valid => Ok(Registration {
            username,
            password: password.into(),
            email,
            first_name: first_name.unwrap_or_default(),
            last_name: last_name.unwrap_or_default(),
        }),
        (username, _, email) => Err(registration_error(
            database,
            serializer.errors,
            username.as_deref(),
            email.as_deref(),
        )?),
    }
}

/// All errors of an invalid registration, including taken values. Different passwords are reported only if all fields are
/// valid, as the framework's `validate` method of a whole serializer.
fn registration_error(
    database: RequestDatabase,
    errors: FieldErrors,
    username: Option<&str>,
    email: Option<&str>,
) -> Result<ApiError, ApiError> {
    let taken = match (username, email) {
        (None, None) => TakenFields::default(),
        _ => users::find_taken(database, username, email)?,
    };
    let mut errors = add_taken(errors, taken);
    if errors.is_empty() {
        errors.add("password", vec!["Password fields didn't match.".into()]);
    }
    Ok(ApiError::Fields(errors))
}

/// Adds the errors of taken values, in the order in which the fields of a registration, and of an account, are named.
pub fn add_taken(mut errors: FieldErrors, taken: TakenFields) -> FieldErrors {
    if taken.username {
        errors.add(
            "username",
            vec!["A user with that username already exists.".into()],
        );
    }
    if taken.email {
        errors.add("email", vec!["This field must be unique.".into()]);
    }
    errors.sort(&REGISTRATION_FIELDS);
    errors
}

fn create_user(
    registration: Registration,
    database: RequestDatabase,
    hasher: &Hasher,
) -> Result<RegisteredUser, ApiError> {
    let password = registration.password.expose_secret();
    let user = NewUser {
        username: &registration.username,
        email: &registration.email,
        password_hash: &hasher.hash(password, database.deadline())?,
        first_name: &registration.first_name,
        last_name: &registration.last_name,
    };
    match users::create(database, &user)? {
        Ok(id) => Ok(RegisteredUser {
            id,
            username: registration.username,
            email: registration.email,
            first_name: registration.first_name,
            last_name: registration.last_name,
        }),
        Err(taken) => Err(ApiError::Fields(add_taken(FieldErrors::default(), taken))),
    }
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
pub fn obtain_token(request: &Request, context: &RequestContext) -> Result<Response, ApiError> {
    let state = context.state;
    let (username, password) = parse_credentials(request)?;
    let limits = GuessLimits::new(request, state, &username);
    limits.check()?;
    let user = users::find_credentials(context.database(), &username)?;
    let stored_hash = user.as_ref().map(|user| user.password_hash.as_str());
    let permit = state.hasher.acquire(context.deadline)?;
    let is_correct = permit.verify(password.expose_secret(), stored_hash);
    match user {
        Some(user) if is_correct && user.is_active => {
            limits.record_success()?;
            let new_hash = rehash(&permit, &user, &password, context.deadline);
            drop(permit);
            if let Some(new_hash) = new_hash {
                store_hash(context, &user, &new_hash);
            }
            token_pair_response(state, user.id, user.token_generation)
        }
        _ => {
            limits.record_failure()?;
            Err(ApiError::WrongCredentials)
        }
    }
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
        let now = Instant::now();
        self.state.address_failures.check(self.client, now)?;
        self.state.account_failures.check(self.account(), now)
    }

    /// # Errors
    /// If other guesses reached a limit meanwhile: then the client must not learn that this one was correct.
    pub fn record_success(&self) -> Result<(), Throttled> {
        let now = Instant::now();
        self.state.address_failures.check(self.client, now)?;
        self.state.account_failures.reset(self.account(), now)
    }

    /// # Errors
    /// If other guesses reached a limit meanwhile: then the client must not learn that this one was wrong.
    pub fn record_failure(&self) -> Result<(), Throttled> {
        let now = Instant::now();
        self.state.address_failures.record(self.client, now)?;
        self.state.account_failures.record(self.account(), now)
    }

    fn account(&self) -> (IpAddr, &str) {
        (self.client, self.username)
    }
}

/// Issues a pair of tokens of the generation.
pub fn token_pair_response(
    state: &AppState,
    user_id: i64,
    generation: i64,
) -> Result<Response, ApiError> {
    let pair = state.token_keys.issue_pair(user_id, generation);
    let (refresh, access) = pair.map_err(signing_error)?;
    Ok(json_response(200, &TokenPair { refresh, access }))
}

fn parse_credentials(request: &Request) -> Result<(String, SecretString), ApiError> {
    let data = parse_body(request)?;
    let mut serializer = Serializer::new(&data, false);
    let username = serializer.text(&CREDENTIALS_USERNAME);
    let password = serializer.text(&CREDENTIALS_PASSWORD);
    serializer.errors.into_result()?;
    let password = password.unwrap_or_default().into();
    Ok((username.unwrap_or_default(), password))
}

/// A bcrypt hash to replace one that Django's PBKDF2 made, now that the password is known, with the permit that verified it.
/// `None` if the hash needs no replacement, or too little time is left; then a later sign-in tries again.
fn rehash(
    permit: &HashingPermit,
    user: &Credentials,
    password: &SecretString,
    deadline: Instant,
) -> Option<String> {
    let has_time = Instant::now() + MAX_HASH_DURATION < deadline;
    if !has_time || !password::needs_rehash(&user.password_hash) {
        return None;
    }
    permit
        .hash(password.expose_secret())
        .inspect_err(|error| warn_of_failed_rehash(user, error))
        .ok()
}

/// An error does not fail the sign-in: a later one tries again.
fn store_hash(context: &RequestContext, user: &Credentials, new_hash: &str) {
    let old_hash = Some(user.password_hash.as_str());
    if let Err(error) = users::set_password_hash(context.database(), user.id, new_hash, old_hash) {
        warn_of_failed_rehash(user, &error);
    }
}

fn warn_of_failed_rehash(user: &Credentials, error: &dyn std::error::Error) {
    log::warn!(
        "cannot replace the imported password hash of user {}: {error}",
        user.id
    );
}

pub fn signing_error(error: jsonwebtoken::errors::Error) -> ApiError {
    ApiError::Internal(format!("cannot sign a token: {error}"))
}
