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
struct OperationParameters {
    /// Names of its query parameters.
    query_names: BTreeSet<String>,
    /// True if it takes a body.
    has_body: bool,
}

/// Declared parameters of all operations, by method and path template.
pub(crate) struct DeclaredParameters(BTreeMap<(String, String), OperationParameters>);

impl DeclaredParameters {
    /// Collects the parameters from a document.
    pub(crate) fn from_document(document: &Document) -> Self {
        let document = serde_json::to_value(document).unwrap_or_default();
        let mut operations = BTreeMap::new();
        for (path, methods) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                operations.insert((method.to_uppercase(), path.clone()), read_operation(operation));
            }
        }
        Self(operations)
    }

    fn find_operation(&self, request: &Request) -> Option<(String, &OperationParameters)> {
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
fn read_operation(operation: &Value) -> OperationParameters {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let query = parameters.filter(|parameter| parameter["in"] == "query");
    let names = query.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned));
    OperationParameters {
        query_names: names.collect(),
        has_body: operation["requestBody"].is_object(),
    }
}

/// Middleware that rejects undeclared parameters and bodies.
pub(crate) async fn reject_undeclared(
    State(parameters): State<Arc<DeclaredParameters>>,
    request: Request,
    next: Next,
) -> Response {
    let Some((name, operation)) = parameters.find_operation(&request) else {
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
    match reject_body(&name, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_query(
    name: &str,
    operation: &OperationParameters,
    request: &Request,
) -> Result<(), ApiError> {
    let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    let query = query.map_err(|error| ApiError::invalid_request(error.body_text()))?;
    let mut seen_names = BTreeSet::new();
    for (parameter, _) in &query.0 {
        if !operation.query_names.contains(parameter) {
            let known = quote_names(operation.query_names.iter());
            let detail = format!("`{parameter}` is no parameter of {name}: it takes {known}");
            return Err(ApiError::invalid_request(detail));
        }
        // A second value of one parameter would be ambiguous.
        if !seen_names.insert(parameter) {
            return Err(ApiError::invalid_request(format!("`{parameter}` is given twice")));
        }
    }
    Ok(())
}

fn quote_names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Rejects a body where none is declared, unless it is blank or an empty object: clients with a
/// generic `post` send `{}`.
async fn reject_body(name: &str, request: Request) -> Result<Request, ApiError> {
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts.clone(), body);
    let body = Bytes::from_request(request, &()).await;
    let body = body.map_err(|error| ApiError::invalid_request(error.body_text()))?;
    let is_blank = body.len() <= EMPTY_BODY_BYTES && body.trim_ascii().is_empty();
    if !is_blank {
        let fields = serde_json::from_slice::<Map<String, Value>>(&body);
        match fields.as_ref().map(|fields| quote_names(fields.keys())) {
            Ok(known) if known == "none" => {}
            Ok(known) => {
                let detail = format!("{name} takes no body: leave out {known}");
                return Err(ApiError::invalid_request(detail));
            }
            Err(_) => return Err(ApiError::invalid_request(format!("{name} takes no body"))),
        }
    }
    Ok(Request::from_parts(parts, Body::empty()))
}
