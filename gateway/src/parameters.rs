//! Rejects query parameters and bodies that the OpenAPI document does not declare for an operation.
//! A misspelt filter would otherwise be ignored, and its listing silently unfiltered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, MatchedPath, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Map, Value};
use utoipa::openapi::OpenApi as Document;

use crate::problem::ApiError;

/// Maximum bytes of a body of white space that is tolerated where none is declared.
const EMPTY_BODY_BYTES: usize = 4096;

/// Declared parameters of one operation.
#[derive(Debug, Default)]
struct Operation {
    /// Names of its query parameters.
    query: BTreeSet<String>,
    /// True if it takes a body.
    has_body: bool,
}

/// Declared parameters of all operations, by method and path template.
pub(crate) struct Parameters(BTreeMap<(String, String), Operation>);

impl Parameters {
    /// Collects the parameters from a document.
    pub(crate) fn of(document: &Document) -> Self {
        let document = serde_json::to_value(document).unwrap_or_default();
        let mut operations = BTreeMap::new();
        for (path, methods) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                operations.insert((method.to_uppercase(), path.clone()), read(operation));
            }
        }
        Self(operations)
    }

    fn find(&self, request: &Request) -> Option<(String, &Operation)> {
        let path = request.extensions().get::<MatchedPath>()?.as_str().to_owned();
        // axum answers HEAD by the GET handler.
        let method = match request.method().as_str() {
            "HEAD" => "GET",
            method => method,
        };
        let name = format!("{method} {path}");
        Some((name, self.0.get(&(method.to_owned(), path))?))
    }
}

// Works on the document's JSON, whose shape the OpenAPI specification fixes.
fn read(operation: &Value) -> Operation {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let query = parameters.filter(|parameter| parameter["in"] == "query");
    let names = query.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned));
    Operation { query: names.collect(), has_body: operation["requestBody"].is_object() }
}

/// Middleware that rejects undeclared parameters and bodies.
pub(crate) async fn refuse_unknown(
    State(parameters): State<Arc<Parameters>>,
    request: Request,
    next: Next,
) -> Response {
    let Some((name, operation)) = parameters.find(&request) else {
        return next.run(request).await;
    };
    if let Err(error) = check_query(&name, operation, &request) {
        return error.into_response();
    }
    // A body of GET has no meaning (RFC 9110, 9.3.1) and no handler reads it.
    let takes_body = operation.has_body || request.method().is_safe();
    if takes_body || request.body().is_end_stream() {
        return next.run(request).await;
    }
    match refuse_body(&name, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_query(name: &str, operation: &Operation, request: &Request) -> Result<(), ApiError> {
    let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    let query = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let mut given = BTreeSet::new();
    for (parameter, _) in &query.0 {
        if !operation.query.contains(parameter) {
            let known = list(operation.query.iter());
            let detail = format!("`{parameter}` is no parameter of {name}: it takes {known}");
            return Err(ApiError::invalid(detail));
        }
        // A second value of one parameter would be ambiguous.
        if !given.insert(parameter) {
            return Err(ApiError::invalid(format!("`{parameter}` is given twice")));
        }
    }
    Ok(())
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Rejects a body where none is declared, unless it is blank or an empty object: clients with a
/// generic `post` send `{}`.
async fn refuse_body(name: &str, request: Request) -> Result<Request, ApiError> {
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts.clone(), body);
    let body = Bytes::from_request(request, &()).await;
    let body = body.map_err(|error| ApiError::invalid(error.body_text()))?;
    let is_blank = body.len() <= EMPTY_BODY_BYTES && body.trim_ascii().is_empty();
    if !is_blank {
        let fields = serde_json::from_slice::<Map<String, Value>>(&body);
        match fields.as_ref().map(|fields| list(fields.keys())) {
            Ok(known) if known == "none" => {}
            Ok(known) => {
                let detail = format!("{name} takes no body: leave out {known}");
                return Err(ApiError::invalid(detail));
            }
            Err(_) => return Err(ApiError::invalid(format!("{name} takes no body"))),
        }
    }
    Ok(Request::from_parts(parts, Body::empty()))
}
