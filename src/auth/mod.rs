//! Who a user is: tokens, passwords and the limits on guessing them.
pub mod bcrypt_cost;
pub mod password;
pub mod signing_key;
pub mod throttle;
pub mod token;
