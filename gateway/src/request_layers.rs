//! The two layers that every request and answer passes.
//!
//! There are two of them, and not one for each concern, because a layer clones everything within it
//! for every request: cost would grow with the square of their number.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;
use uuid::Uuid;

use crate::allowed_hosts::AllowedHosts;
use crate::auth::{self, TokenRegistry};
use crate::body_memory::{self, BODY_LIMIT, BodyMemoryBudget};
use crate::error_body;
use crate::http::compat::ErrorFormat;
use crate::listen::{self, ConnectionLimits};
use crate::problem::{ApiError, RequestId};
use crate::response_headers::add_security_headers;
use crate::unauthenticated_connections::ConnectionAdmission;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// State of the outer layer, which all requests pass.
pub(crate) struct EdgeLayerState {
    pub(crate) hosts: AllowedHosts,
    pub(crate) limits: ConnectionLimits,
    /// True if this process terminates TLS.
    pub(crate) is_encrypted: bool,
}

/// State of the inner layer, which requests that need a token pass.
pub(crate) struct AuthLayerState {
    pub(crate) tokens: TokenRegistry,
    pub(crate) body_budget: BodyMemoryBudget,
}

/// Outer layer: checks the host, limits the body's time, adds the security headers.
pub(crate) async fn accept_request(
    State(entrance): State<Arc<EdgeLayerState>>,
    request: Request,
    next: Next,
) -> Response {
    let host_check = entrance.hosts.check_host(request.headers());
    let request = listen::limit_body_time(entrance.limits, request);
    let mut response = run_with_request_id(request, host_check, next).await;
    // Also on error answers, which the handlers never see.
    add_security_headers(response.headers_mut(), entrance.is_encrypted);
    response
}

/// Gives a request its id, which its answer, its trace span and the server's log carry.
async fn run_with_request_id(
    mut request: Request,
    checked: Result<(), ApiError>,
    next: Next,
) -> Response {
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    // A caller's own id is kept if it is short ASCII: it ends up in headers and logs.
    let usable = |id: &&str| !id.is_empty() && id.len() <= 100 && id.is_ascii();
    let id = given.filter(usable).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = request.method().clone();
    let form = ErrorFormat::from_path(request.uri().path());
    let span = tracing::info_span!(
        "http",
        otel.name = format!("{method} {}", path.as_deref().unwrap_or_default()),
        otel.kind = "server",
        http.request.method = %method,
        http.route = path,
        http.response.status_code = tracing::field::Empty,
        convergio.request.id = id,
    );
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = match checked {
        Ok(()) => next.run(request).instrument(span.clone()).await,
        Err(refusal) => refusal.into_response(),
    };
    span.record("http.response.status_code", response.status().as_u16());
    error_body::write_error_body(&mut response, &id, form);
    if let Ok(value) = HeaderValue::from_str(&id) {
        let headers = response.headers_mut();
        // In the compatible API the id of a call is the id of its run, which the handler has set.
        if let Some(form) = form {
            headers.entry(form.request_id_header()).or_insert_with(|| value.clone());
        }
        headers.entry(REQUEST_ID).or_insert(value);
    }
    tracing::debug!(%method, path, status = response.status().as_u16(), request_id = id);
    response
}

/// Inner layer: authenticates the caller and has the request worked on, on the work runtime.
pub(crate) async fn admit_caller(
    State(guard): State<Arc<AuthLayerState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = match auth::authenticate_request(&guard.tokens, &mut request) {
        Ok(token) => token,
        Err(refusal) => return refusal.into_response(),
    };
    // From here on work is done: not on the runtime of those who are still to be authenticated.
    if let Some(admission) = request.extensions().get::<Arc<ConnectionAdmission>>().cloned() {
        admission.wait_for_move_to_work().await;
    }
    // The body limit applies to axum's extractors, which read the body later.
    DefaultBodyLimit::max(BODY_LIMIT).apply(&mut request);
    let request = body_memory::read_small(request).await;
    let response = body_memory::run_within_budget(&guard.body_budget, request, next).await;
    auth::end_on_revocation(&guard.tokens, token, response)
}
