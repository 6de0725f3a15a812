//! Tokens that a client has: refresh the access token, verify a token, blacklist a refresh token (sign out).
use rouille::{Request, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::account_fields::{REFRESH, TOKEN};
use super::accounts::signing_error;
use super::error::ApiError;
use super::validation::body::parse_body;
use super::validation::fields::{CharField, Serializer};
use super::{RequestContext, json_response};
use crate::auth::token::{Claims, Subject, TokenType};
use crate::db;
use crate::db::tokens::{self, TokenRecord};
use crate::db::users::Requester;

/// The response to a refresh.
#[derive(Serialize, ToSchema)]
pub struct AccessToken {
    #[schema(example = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2lnbmVk")]
    access: String,
}

/// The response to a request that has nothing else to say.
#[derive(Serialize, ToSchema)]
pub struct Empty {}

/// `POST auth/refresh/`: exchanges a refresh token for a new access token. As in SimpleJWT, a refresh token without a user
/// gives an access token without a user.
///
/// # Errors
/// 401 for an invalid or blacklisted token, for a user who does not exist or is inactive, and for a token from before a
/// change of the password.
pub fn refresh_token(request: &Request, context: &RequestContext) -> Result<Response, ApiError> {
    let claims = parse_refresh_token(request, context)?;
    let record = record_of(&claims).ok_or(ApiError::NoActiveAccount)?;
    tokens::check(context.database(), &record).map_err(refresh_error)?;
    let token_keys = &context.state.token_keys;
    let access = token_keys.issue_access(claims).map_err(signing_error)?;
    Ok(json_response(200, &AccessToken { access }))
}

/// `POST auth/token/blacklist/`: refuses a refresh token from now on. Other tokens of the user stay valid.
///
/// # Errors
/// As [`refresh_token`].
pub fn blacklist_token(request: &Request, context: &RequestContext) -> Result<Response, ApiError> {
    let claims = parse_refresh_token(request, context)?;
    let record = record_of(&claims).ok_or(ApiError::NoActiveAccount)?;
    tokens::blacklist(context.database(), &record).map_err(refresh_error)?;
    Ok(json_response(200, &Empty {}))
}

/// `POST auth/token/verify/`: whether a token of any type is valid. Other than SimpleJWT, a token is not valid if its user
/// could not use it.
///
/// # Errors
/// 401 for an invalid or blacklisted token, for a user who does not exist or is inactive, and for a token from before a
/// change of the password.
pub fn verify_token(request: &Request, context: &RequestContext) -> Result<Response, ApiError> {
    let token = parse_token(request, &TOKEN)?;
    let claims = context.state.token_keys.verify_any(&token);
    let record = record_of(&claims.map_err(ApiError::RefreshToken)?);
    let record = record.ok_or(ApiError::UserNotFound)?;
    tokens::check(context.database(), &record)?;
    Ok(json_response(200, &Empty {}))
}

fn parse_token(request: &Request, field: &CharField) -> Result<String, ApiError> {
    let data = parse_body(request)?;
    let mut serializer = Serializer::new(&data, false);
    let token = serializer.text(field);
    serializer.errors.into_result()?;
    Ok(token.unwrap_or_default())
}

fn parse_refresh_token(request: &Request, context: &RequestContext) -> Result<Claims, ApiError> {
    let token = parse_token(request, &REFRESH)?;
    let claims = context.state.token_keys.verify(&token, TokenType::Refresh);
    claims.map_err(ApiError::RefreshToken)
}

/// What the database has to know of a token; `None` if its user cannot exist.
fn record_of(claims: &Claims) -> Option<TokenRecord> {
    let owner = match claims.subject() {
        Subject::Missing | Subject::Falsy => None,
        Subject::Invalid => return None,
        Subject::User(user_id) => Some(Requester {
            user_id,
            token_generation: claims.generation(),
        }),
    };
    Some(TokenRecord {
        owner,
        id_digest: claims.id_digest().to_vec(),
        expires: claims.expires(),
    })
}

/// SimpleJWT has one message for the user of a refresh token who does not exist or is inactive.
fn refresh_error(error: db::Error) -> ApiError {
    match error {
        db::Error::UnknownUser | db::Error::InactiveUser => ApiError::NoActiveAccount,
        error => error.into(),
    }
}
