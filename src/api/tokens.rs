//! Tokens that a client has: refresh the access token, verify a token, blacklist a refresh token (sign out).
use rouille::Request;
use serde::Serialize;
use utoipa::ToSchema;

use super::account_fields::{REFRESH, TOKEN};
use super::error::ApiError;
use super::validation::body::parse_body;
use super::validation::fields::parse_text;
use super::{HandlerResult, RequestContext, json_response};
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
pub fn refresh_token(request: &Request, context: &RequestContext) -> HandlerResult {
    let (claims, record) = parse_refresh_token(request, context)?;
    tokens::check(context.database(), &record).map_err(refresh_error)?;
    let access = context.state.token_keys.issue_access(claims)?;
    Ok(json_response(200, &AccessToken { access }))
}

/// `POST auth/token/blacklist/`: refuses a refresh token from now on. Other tokens of the user stay valid. Fails as
/// [`refresh_token`] does.
pub fn blacklist_token(request: &Request, context: &RequestContext) -> HandlerResult {
    let (_, record) = parse_refresh_token(request, context)?;
    tokens::blacklist(context.database(), &record).map_err(refresh_error)?;
    Ok(json_response(200, &Empty {}))
}

/// `POST auth/token/verify/`: whether a token of any type is valid. Other than SimpleJWT, a token is not valid if its user
/// could not use it. Fails as [`refresh_token`] does, with other messages about the user.
pub fn verify_token(request: &Request, context: &RequestContext) -> HandlerResult {
    let token = parse_text(&parse_body(request)?, &TOKEN)?;
    let claims = context.state.token_keys.verify_any(&token);
    let record = record_of(&claims.map_err(ApiError::RefreshToken)?);
    tokens::check(context.database(), &record.ok_or(ApiError::UserNotFound)?)?;
    Ok(json_response(200, &Empty {}))
}

fn parse_refresh_token(
    request: &Request,
    context: &RequestContext,
) -> Result<(Claims, TokenRecord), ApiError> {
    let token = parse_text(&parse_body(request)?, &REFRESH)?;
    let claims = context.state.token_keys.verify(&token, TokenType::Refresh);
    let claims = claims.map_err(ApiError::RefreshToken)?;
    let record = record_of(&claims).ok_or(ApiError::NoActiveAccount)?;
    Ok((claims, record))
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
