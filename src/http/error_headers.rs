//! The application's headers on the server's own error responses, such as those by which a browser lets a script read
//! them. The server does not know what they mean.
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// A response's header, as rouille has it.
pub type Header = (Cow<'static, str>, Cow<'static, str>);

/// Finds the value of a request's header by its name.
pub type HeaderLookup<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

/// Gives the headers of an error response from those of its request. Called once for each request, so it must be quick.
pub type ErrorHeadersOf = dyn Fn(&HeaderLookup) -> Vec<Header> + Send + Sync;

/// The function that the application has set; without one, error responses have no further headers. Clones share it.
#[derive(Clone, Default)]
pub struct ErrorHeaders(Arc<OnceLock<Box<ErrorHeadersOf>>>);

impl ErrorHeaders {
    /// Sets the function, unless there is one.
    pub fn set(&self, headers_of: Box<ErrorHeadersOf>) {
        self.0.get_or_init(|| headers_of);
    }

    /// For a request with these headers; with none if they are not known.
    pub fn of(&self, lookup: &HeaderLookup) -> Vec<Header> {
        let headers_of = self.0.get();
        headers_of.map_or_else(Vec::new, |headers_of| headers_of(lookup))
    }
}
