//! The router: routes with the layers around them, and the OpenAPI document.
//!
//! It stands on top: it takes from the handlers, and nothing in this crate takes from it.

use std::sync::Arc;

use axum::http::{Method, Uri};
use axum::{Router, middleware};
use convergio_schemas::error_code;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, ObjectBuilder, OpenApi as Document, Ref, ResponseBuilder, schema::Type,
};
use utoipa_axum::router::OpenApiRouter;

use crate::allowed_hosts::AllowedHosts;
use crate::body_memory::BodyMemoryBudget;
use crate::http::compat::{self, ErrorFormat};
use crate::http::{
    agents, amend, approvals, billing, events, export, fork, graphs, health, memories, migrate,
    replay, run_control, run_diff, runs, tokens,
};
use crate::idempotent_answers;
use crate::listen::{self, ConnectionContext, ConnectionLimits};
use crate::parameters::{self, DeclaredParameters};
use crate::problem::ApiError;
use crate::request_layers::{self, AuthLayerState, EdgeLayerState};
use crate::state::{ApiRoutes, Gateway};
use crate::tls::Tls;

/// Name of the bearer token's security scheme in the OpenAPI document.
const TOKEN_SCHEME: &str = "token";

#[derive(OpenApi)]
#[openapi(info(
    title = "Convergio",
    description = "Runs graphs of AI agents on a durable log.",
    license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
))]
struct ApiDoc;

/// All routes that require a token but those of the compatible API, a line for each noun.
fn api_routes() -> ApiRoutes {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .merge(graphs::graph_routes())
        .merge(agents::agent_routes())
        .merge(runs::run_routes())
        .merge(run_control::control_routes())
        .merge(amend::amend_routes())
        .merge(fork::fork_routes())
        .merge(run_diff::comparison_routes())
        .merge(replay::replay_routes())
        .merge(migrate::migration_routes())
        .merge(export::export_routes())
        .merge(events::event_routes())
        .merge(approvals::approval_routes())
        .merge(memories::memory_routes())
        .merge(tokens::token_routes())
        .merge(billing::billing_routes())
}

/// Returns the OpenAPI document of all routes but those of the compatible API.
pub fn openapi_document() -> Document {
    let mut document = public_routes().merge(api_routes()).split_for_parts().1;
    // What all handlers have is added to the finished document: none of them needs to repeat it.
    for path in document.paths.paths.values_mut() {
        [&mut path.post, &mut path.delete].into_iter().flatten().for_each(add_idempotency_key);
    }
    require_token(&mut document);
    document
}

/// Requires a bearer token for every operation except the health checks, and documents the error
/// without one.
fn require_token(document: &mut Document) {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(TOKEN_SCHEME, SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new(TOKEN_SCHEME, [""; 0])]);
    let public = public_routes().split_for_parts().1.paths.paths;
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            if public.contains_key(path) {
                // An empty requirement overrides the document's default for this operation.
                operation.security = Some(vec![SecurityRequirement::default()]);
            } else {
                add_problem_response(operation, "401", "Not signed in");
            }
        }
    }
}

/// Documents the `Idempotency-Key` header and its mismatch error on an operation that writes.
fn add_idempotency_key(operation: &mut Operation) {
    let text = "1 to 255 visible ASCII characters: sent again under it, the request is done once \
        and gets the same answer";
    let key = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some(text))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)));
    operation.parameters.get_or_insert_default().push(key.build().into());
    add_problem_response(operation, "422", "The idempotency key was used for another request");
}

/// Documents an error that operations have without naming it themselves.
fn add_problem_response(operation: &mut Operation, status: &str, description: &str) {
    let problem = Content::new(Some(Ref::from_schema_name("Problem")));
    let response =
        ResponseBuilder::new().description(description).content("application/json", problem);
    operation.responses.responses.insert(status.to_owned(), response.build().into());
}

fn public_routes() -> ApiRoutes {
    OpenApiRouter::with_openapi(ApiDoc::openapi()).merge(health::health_routes())
}

/// Builds the router. Routes under `/v1` and those of the compatible API require a token.
fn build_router(gateway: Arc<Gateway>, entrance: EdgeLayerState) -> Router {
    let (api, _) = api_routes().split_for_parts();
    let document = openapi_document();
    let operations = Arc::new(DeclaredParameters::from_document(&document));
    let guard =
        AuthLayerState { tokens: gateway.tokens.clone(), body_budget: BodyMemoryBudget::new() };
    let reject_undeclared =
        || middleware::from_fn_with_state(operations.clone(), parameters::reject_undeclared);
    // Layers apply from the last to the first: a request is authenticated, then its parameters are
    // checked, then its idempotency key is looked up. Parameters come before the key so that a
    // rejected request binds no key.
    let guarded = api
        .layer(middleware::from_fn_with_state(
            Arc::clone(&gateway),
            idempotent_answers::answer_once,
        ))
        .layer(reject_undeclared())
        .merge(compat::compat_routes(Arc::clone(&gateway)))
        .layer(middleware::from_fn_with_state(Arc::new(guard), request_layers::admit_caller));
    let (open, _) = public_routes().split_for_parts();
    // The layer is applied again: a layer covers only the routes added before it.
    let public = open.layer(reject_undeclared());
    // Serialised once: the document never changes while the process runs.
    let document = Arc::new(document.to_json().unwrap_or_default());
    let document = axum::routing::get(move || {
        let document = Arc::clone(&document);
        async move { ([("content-type", "application/json")], document.to_string()) }
    });
    guarded
        .merge(public)
        .merge(compat::probe_routes())
        .route("/openapi.json", document)
        .fallback(no_such_path)
        .method_not_allowed_fallback(async || {
            ApiError::new(error_code::METHOD_NOT_ALLOWED, "see /openapi.json for what is offered")
        })
        .layer(middleware::from_fn_with_state(Arc::new(entrance), request_layers::accept_request))
        .with_state(gateway)
}

/// Answers 404 for unknown paths; below the compatible API it names what was asked for, since SDKs
/// show the message to their users.
async fn no_such_path(method: Method, uri: Uri) -> ApiError {
    let detail = match ErrorFormat::from_path(uri.path()) {
        Some(_) => format!("`{method} {}` is not available here", uri.path()),
        None => "there is no such path".to_owned(),
    };
    ApiError::new(error_code::NOT_FOUND, detail)
}

/// Options of [`serve_gateway`]: limits, TLS, hosts and runtime.
#[derive(Clone, Default)]
pub struct ServeOptions {
    /// Limits on connections and on slow callers.
    pub limits: ConnectionLimits,
    /// TLS configuration; connections are plain text if `None`.
    pub tls: Option<Tls>,
    /// Values of the `Host` header that are accepted.
    pub hosts: AllowedHosts,
    /// Runtime that serves connections whose callers are authenticated; if `None`, they stay on the
    /// runtime that accepts connections.
    pub work_runtime: Option<Handle>,
}

/// Serves until `stop` becomes true, then lets open requests finish.
pub async fn serve_gateway(
    listener: TcpListener,
    gateway: Gateway,
    options: ServeOptions,
    stop: watch::Receiver<bool>,
) {
    let ServeOptions { limits, tls, hosts, work_runtime } = options;
    let entrance = EdgeLayerState { hosts, limits, is_encrypted: tls.is_some() };
    let app = build_router(Arc::new(gateway), entrance);
    let context = ConnectionContext { app, limits, tls, work_runtime, stop };
    listen::serve_connections(listener, context).await;
}
