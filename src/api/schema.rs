//! The API described in OpenAPI 3.1. The answers' shapes are those of the types that handlers answer with, the bodies'
//! bounds those of the fields that handlers read, and each refusal is the very one that its error makes.
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::LazyLock;

use rouille::Response;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::auth::{AccessToken, TokenPair};
use super::error::{Error, FieldErrors, Refusal};
use super::middleware::security_headers;
use super::operations::{OF_THE_SERVER, Operation, operations};
use super::pagination::Envelope;
use super::registration::RegisteredUser;
use super::{answer_json, bodies};
use crate::db::movies::Movie;

#[derive(OpenApi)]
#[openapi(components(schemas(
    AccessToken,
    Envelope,
    FieldErrors,
    Movie,
    Refusal,
    RegisteredUser,
    TokenPair
)))]
struct Components;

/// What a person reads first.
const GUIDE: &str = "\
1. **Make an account**, then **sign in**.\n\
2. Press **Authorize** and put in the `access` of that answer.\n\
3. **Keep a movie**; list, search, change it, forget it.\n\n\
Names, passwords and titles are trimmed of white space, numbers are taken for text and text for numbers, unknown fields \
are ignored. HEAD is GET without the body; OPTIONS answers 204 with `Allow`; a path that lacks only its trailing slash is \
sent on with 308.";

static SCHEMA: LazyLock<String> = LazyLock::new(|| describe().to_string());

/// `GET schema/`: the description, the same for everybody.
pub fn show_schema() -> Response {
    Response::from_data("application/json", SCHEMA.as_str())
        .with_unique_header("Cache-Control", "no-cache")
}

fn describe() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(operation.method.to_owned(), describe_operation(operation));
        }
    }
    // Nothing in these types has keys that are no text, so this does not fail.
    let answers = serde_json::to_value(Components::openapi()).unwrap_or_default();
    let answers = answers
        .pointer("/components/schemas")
        .and_then(Value::as_object);
    let mut schemas = answers.cloned().unwrap_or_default();
    schemas.extend(bodies::schemas());
    let example = "9e3779b97f4a7c15";
    let request_id = json!({"description": "The request's name in the log", "schema": {"type": "string"}, "example": example});
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
                "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The `access` that a sign-in answers with",
            }},
        },
    })
}

fn describe_operation(operation: Operation) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "tags": [if operation.is_guarded() { "movies" } else { "accounts" }],
        "summary": operation.summary,
        "parameters": bodies::parameters(&operation),
    });
    if let Some(described) = described.as_object_mut() {
        if operation.is_guarded() {
            described.insert("security".to_owned(), json!([{"bearer": []}]));
        }
        if let Some(takes) = operation.takes {
            let media = json!({"schema": reference(takes)});
            let content =
                json!({"application/json": media, "application/x-www-form-urlencoded": media});
            let body = json!({"required": operation.method != "patch", "content": content});
            described.insert("requestBody".to_owned(), body);
        }
        described.insert("responses".to_owned(), describe_answers(operation));
    }
    described
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// All answers of one status.
#[derive(Default)]
struct Answers {
    description: String,
    shapes: BTreeSet<&'static str>,
    examples: Map<String, Value>,
    headers: Map<String, Value>,
}

impl Answers {
    /// Adds the refusal's own answer, as an example beside the others of its status.
    fn add(&mut self, name: &str, shape: &'static str, description: String, answer: Response) {
        if self.description.is_empty() {
            self.description = description;
        }
        let (mut reader, _) = answer.data.into_reader_and_size();
        let mut body = String::new();
        // The body is in memory: reading it does not fail.
        reader.read_to_string(&mut body).unwrap_or_default();
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        self.shapes.insert(shape);
        self.examples
            .insert(name.to_owned(), json!({"value": body}));
        for (header, value) in answer.headers {
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
        let mut described = json!({"description": self.description, "headers": self.headers});
        // Refusal before FieldErrors: the narrower one, which a generated client is to try first.
        let shapes: Vec<Value> = self.shapes.into_iter().rev().map(reference).collect();
        let schema = match shapes.as_slice() {
            [] => return described,
            [shape] => shape.clone(),
            _ => json!({"anyOf": shapes}),
        };
        let mut media = json!({"schema": schema});
        if let (Some(media), false) = (media.as_object_mut(), self.examples.is_empty()) {
            media.insert("examples".to_owned(), self.examples.into());
        }
        if let Some(described) = described.as_object_mut() {
            described.insert("content".to_owned(), json!({"application/json": media}));
        }
        described
    }
}

fn describe_answers(operation: Operation) -> Value {
    let success = Answers {
        description: operation.summary.to_owned(),
        shapes: operation.gives.into_iter().collect(),
        ..Answers::default()
    };
    let mut answers = BTreeMap::from([(operation.status, success)]);
    for (name, refusal) in operation.refusals {
        let shape = match refusal {
            Error::Fields(_) | Error::NonField(_) => "FieldErrors",
            _ => "Refusal",
        };
        let description = match refusal {
            Error::Fields(_) => "fields refused".to_owned(),
            _ => refusal.to_string(),
        };
        let of_status = answers.entry(refusal.status()).or_default();
        of_status.add(name, shape, description, refusal.into_response());
    }
    for (name, refusal) in OF_THE_SERVER {
        let answer = answer_json(refusal.status(), &json!({"detail": refusal.detail()}));
        let answer = match refusal.status() {
            503 => answer.with_unique_header("Retry-After", "1"),
            _ => answer,
        };
        let of_status = answers.entry(refusal.status()).or_default();
        of_status.add(name, "Refusal", refusal.detail().to_owned(), answer);
    }
    let described = answers
        .into_iter()
        .map(|(status, answers)| (status.to_string(), answers.describe()));
    Value::Object(described.collect())
}
