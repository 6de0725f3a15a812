//! Tokens, passwords, and limits on the rate of attempts.
pub mod bcrypt_cost;
pub mod password;
pub mod signing_key;
pub mod throttle;
pub mod token;
