//! The OpenAPI 3.1 description of the API, and the Swagger UI page that shows it.
//!
//! Shapes of responses come from the types that handlers serialize, limits of bodies from the fields that handlers validate,
//! operations from the route table, and examples of errors from [`ApiError`] itself.
mod errors;
mod schemas;
mod swagger_ui;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::LazyLock;

use rouille::{Request, Response};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use self::errors::{SERVER_ERRORS, errors_of};
pub use self::swagger_ui::{PAGE_PATH, SwaggerFile, redirect_browser, show_docs, show_docs_file};
use super::accounts::{RegisteredUser, TokenPair};
use super::authentication::Access;
use super::error::{ApiError, ErrorBody, FieldErrors};
use super::middleware::{render_http_error, security_headers};
use super::movies::LIST_PATH;
use super::pagination::Page;
use super::routes::{ROUTES, RouteEntry};
use super::tokens::{AccessToken, Empty};
use super::{HandlerResult, RequestContext};
use crate::db::movies::Movie;
use crate::db::users::Account;

/// What the description says of a route beside its method, path and access.
pub struct Operation {
    /// The name of the handler; generated clients name their function after it.
    pub id: &'static str,
    /// One line.
    pub summary: &'static str,
    /// The schema of the request body, if the operation has one.
    pub body: Option<&'static str>,
    /// The status of a success.
    pub status: u16,
    /// The schema of a success's body, if it has one.
    pub response: Option<&'static str>,
}

#[derive(OpenApi)]
#[openapi(components(schemas(
    AccessToken,
    Account,
    Empty,
    Page<Movie>,
    FieldErrors,
    Movie,
    ErrorBody,
    RegisteredUser,
    TokenPair
)))]
struct Components;

/// The introduction on the page.
const GUIDE: &str = "\
1. **Register**, then **sign in**.\n\
2. Press **Authorize** and enter the `access` token of the response.\n\
3. **Create a movie**; then list, search, change and delete movies.\n\n\
White space around names, passwords and titles is removed. Numbers are accepted as text and text as numbers, and unknown \
fields are ignored. HEAD returns the headers of GET; OPTIONS returns 204 with `Allow`; a path that lacks only its trailing \
slash is redirected with 308.";

static DESCRIPTION: LazyLock<String> = LazyLock::new(|| describe().to_string());

/// `GET schema/`: the description, the same for every client.
pub fn show_schema(_: &Request, _: &RequestContext) -> HandlerResult {
    let response = Response::from_data("application/json", DESCRIPTION.as_str());
    Ok(response.with_unique_header("Cache-Control", "no-cache"))
}

fn describe() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for entry in ROUTES {
        let Some(operation) = &entry.operation else {
            continue;
        };
        let path = paths.entry(entry.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            let described = describe_operation(entry, operation);
            methods.insert(entry.method.to_ascii_lowercase(), described);
        }
    }
    // Serialization fails only for maps whose keys are not strings, and these types have none.
    let components = serde_json::to_value(Components::openapi()).unwrap_or_default();
    let responses = components
        .pointer("/components/schemas")
        .and_then(Value::as_object);
    let responses = responses.into_iter().flatten().map(|(name, schema)| {
        // utoipa appends the type of the results, but lists of this API have only movies.
        let name = if name == "Page_Movie" { "Page" } else { name };
        (name, schema.clone())
    });
    let mut schemas = members(responses);
    schemas.extend(schemas::request_bodies());
    let example = "9e3779b97f4a7c15";
    let request_id = json!({"description": "The id of the request in the log", "schema": {"type": "string"}, "example": example});
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "movies-api",
            "version": env!("CARGO_PKG_VERSION"),
            "description": GUIDE,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": "accounts"}, {"name": "movies"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": {"X-Request-Id": request_id},
            "securitySchemes": {"bearer": {
                "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The `access` token of a sign-in's response",
            }},
        },
    })
}

fn describe_operation(entry: &RouteEntry, operation: &Operation) -> Value {
    let tag = match entry.path.starts_with(LIST_PATH) {
        true => "movies",
        false => "accounts",
    };
    let mut described = members([
        ("operationId", operation.id.into()),
        ("tags", json!([tag])),
        ("summary", operation.summary.into()),
        ("parameters", schemas::parameters(entry, operation)),
    ]);
    if entry.access == Access::Authenticated {
        described.insert("security".to_owned(), json!([{"bearer": []}]));
    }
    if let Some(body) = operation.body {
        let media = json!({"schema": reference(body)});
        let content =
            json!({"application/json": media, "application/x-www-form-urlencoded": media});
        let body = json!({"required": entry.method != "PATCH", "content": content});
        described.insert("requestBody".to_owned(), body);
    }
    let responses = describe_responses(entry, operation);
    described.insert("responses".to_owned(), responses);
    described.into()
}

/// The members of a JSON object.
fn members<'a>(members: impl IntoIterator<Item = (&'a str, Value)>) -> Map<String, Value> {
    let members = members.into_iter();
    members
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// All responses of one status.
#[derive(Default)]
struct StatusResponses {
    description: String,
    schemas: BTreeSet<&'static str>,
    examples: Map<String, Value>,
    headers: Map<String, Value>,
}

impl StatusResponses {
    /// Adds an error response as an example.
    fn add(&mut self, name: &str, schema: &'static str, description: String, response: Response) {
        if self.description.is_empty() {
            self.description = description;
        }
        let (mut reader, _) = response.data.into_reader_and_size();
        let mut body = String::new();
        // The body is in memory: reading it does not fail.
        reader.read_to_string(&mut body).unwrap_or_default();
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        self.schemas.insert(schema);
        self.examples
            .insert(name.to_owned(), json!({"value": body}));
        for (header, value) in response.headers {
            if header != "Content-Type" {
                let described = json!({"schema": {"type": "string"}, "example": value});
                self.headers.insert(header.into_owned(), described);
            }
        }
    }

    fn describe(mut self) -> Value {
        let request_id = json!({"$ref": "#/components/headers/X-Request-Id"});
        self.headers.insert("X-Request-Id".to_owned(), request_id);
        for (header, value) in security_headers() {
            let described = json!({"required": true, "schema": {"type": "string", "const": value}, "example": value});
            self.headers.insert(header.into_owned(), described);
        }
        let mut described = members([
            ("description", self.description.into()),
            ("headers", self.headers.into()),
        ]);
        // Error before FieldErrors: generated clients try the schemas in this order, and FieldErrors accepts any object.
        let schemas: Vec<Value> = self.schemas.into_iter().map(reference).collect();
        let schema = match schemas.as_slice() {
            [] => return described.into(),
            [schema] => schema.clone(),
            _ => json!({"anyOf": schemas}),
        };
        let mut media = members([("schema", schema)]);
        if !self.examples.is_empty() {
            media.insert("examples".to_owned(), self.examples.into());
        }
        described.insert("content".to_owned(), json!({"application/json": media}));
        described.into()
    }
}

fn describe_responses(entry: &RouteEntry, operation: &Operation) -> Value {
    let success = StatusResponses {
        description: operation.summary.to_owned(),
        schemas: operation.response.into_iter().collect(),
        ..StatusResponses::default()
    };
    let mut responses = BTreeMap::from([(operation.status, success)]);
    for (name, error) in errors_of(entry, operation) {
        let (schema, description) = match error {
            ApiError::Fields(_) => ("FieldErrors", "invalid fields".to_owned()),
            _ => ("Error", error.to_string()),
        };
        let response = error.into_response();
        let of_status = responses.entry(response.status_code).or_default();
        of_status.add(name, schema, description, response);
    }
    for (name, error) in SERVER_ERRORS {
        let response = render_http_error(error, &|_| None, &[]);
        let response = match error.status() {
            503 => response.with_unique_header("Retry-After", "1"),
            _ => response,
        };
        let of_status = responses.entry(error.status()).or_default();
        of_status.add(name, "Error", error.detail().to_owned(), response);
    }
    let described = responses
        .into_iter()
        .map(|(status, responses)| (status.to_string(), responses.describe()));
    Value::Object(described.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member.as_str() {
                        Some(reference) if name == "$ref" => _ = found.insert(reference.to_owned()),
                        _ => references(member, found),
                    }
                }
            }
            Value::Array(elements) => elements
                .iter()
                .for_each(|element| references(element, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_and_no_other_component_is_in_the_description() {
        let description = describe();
        let mut found = BTreeSet::new();
        references(&description, &mut found);
        let components = &description["components"];
        let defined = ["schemas", "headers"].into_iter().flat_map(|kind| {
            let names = components[kind].as_object().unwrap().keys();
            names.map(move |name| format!("#/components/{kind}/{name}"))
        });
        assert_eq!(found, defined.collect());
    }

    #[test]
    fn names_of_examples_are_unique_in_an_operation() {
        for entry in ROUTES {
            let Some(operation) = &entry.operation else {
                continue;
            };
            let errors = errors_of(entry, operation);
            let names: BTreeSet<_> = errors.iter().map(|(name, _)| *name).collect();
            assert_eq!(names.len(), errors.len(), "{}", operation.id);
        }
    }
}
