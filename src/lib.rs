//! movies-api keeps movies for signed-in users: a synchronous thread-pool server on PostgreSQL.
//!
//! A request walks through the rooms in one direction:
//!
//! ```text
//! server      socket -> rouille::Request     HTTP and threads; knows nothing of movies
//! api         the table of routes, the bearer token, the handler, the refusals
//!   body, query, fields, account             what was sent -> typed values, or every message against them
//! token       claims, signing, checking      password    bcrypt and the queue in front of it
//! throttle    how often somebody may fail
//! store       one prepared statement, a file under sql/
//! api         struct -> JSON, page: the envelope
//! server      rouille::Response -> socket
//! trace       what was learnt of it              logging     one line            metrics     one more of its kind
//! ```
//!
//! `signing_key` is the type of the keys that `token` signs with, and `bcrypt_cost` says whether `password` can meet a cost here.
//! `settings` says what there is to set, and `command_line` alone reads the environment; `commands` are what operators
//! run, `serve` among them. `text` is how Python reads text, on which the framework's rules rest. `api::schema` describes
//! the API, from `operations` (what may be asked) and `bodies` (what is taken); `api::docs` is the page on it.
//! tests/house.rs holds who may use whom.

pub mod api;
pub mod bcrypt_cost;
pub mod command_line;
pub mod commands;
pub mod logging;
pub mod metrics;
pub mod password;
pub mod server;
pub mod settings;
pub mod signing_key;
pub mod store;
pub mod text;
pub mod throttle;
pub mod token;
pub mod trace;
