//! Validation of input by the rules of Django REST framework and django-filter, with their messages.
//!
//! `body` turns a request's body into named values, `fields` validates them as serializer fields do, and `filters` reads the
//! query parameters of a list. `urlencoded` is the encoding that forms and queries share.
pub mod body;
pub mod fields;
pub mod filters;
pub mod urlencoded;
