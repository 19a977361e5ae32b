//! The router, the state that handlers share, and the OpenAPI document.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, Uri};
use axum::{Extension, Router, middleware};
use convergio_evaluation::Evaluator;
use convergio_eventstore::{HealthRegistry, LiveHub, Repository};
use convergio_projections::{MemoryIndexes, Queries};
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
use utoipa_axum::routes;

use crate::allowed_hosts::AllowedHosts;
use crate::auth::{self, TokenRegistry};
use crate::body_memory::BodyMemoryBudget;
use crate::http::compat::{self, CompatSettings, ErrorFormat, ModelDirectory};
use crate::http::replay::Replayer;
use crate::http::{
    agents, amend, approvals, billing, events, export, fork, graphs, health, memories, migrate,
    replay, run_control, run_diff, runs, tokens,
};
use crate::idempotent_answers;
use crate::listen::{self, ConnectionLimits};
use crate::parameters::{self, DeclaredParameters};
use crate::problem::ApiError;
use crate::request_layers::{self, AuthLayerState, EdgeLayerState};
use crate::tls::Tls;
use convergio_schemas::error_code;

/// Maximum bytes of a request body; manifests have a smaller limit of their own.
pub(crate) const BODY_LIMIT: usize = 20 << 20;
/// Name of the bearer token's security scheme in the OpenAPI document.
const TOKEN_SCHEME: &str = "token";

/// State that all handlers share.
///
/// Every request clones a single `Arc` of it: cloning each field instead would make all threads
/// contend for several reference counts.
#[derive(Clone)]
pub struct Gateway {
    /// Decides commands and appends their events; the only way to write to the log.
    pub repository: Repository,
    /// Read models, which may lag behind the log.
    pub queries: Queries,
    /// Recall of memories, by subject or by question.
    pub memories: Arc<MemoryIndexes>,
    /// Health of the process's background loops.
    pub health: HealthRegistry,
    /// Live progress of model calls, which the log does not hold.
    pub live_notes: LiveHub,
    /// Parses manifests and validates inputs under limits of time and memory.
    pub evaluator: Evaluator,
    /// Access tokens and the tenant, actor and roles that each stands for.
    pub tokens: TokenRegistry,
    /// Models that callers may name.
    pub models: Arc<dyn ModelDirectory>,
    /// Settings of the OpenAI and Anthropic compatible API.
    pub compat: CompatSettings,
    /// Replays runs; implemented outside this crate, because the gateway executes nothing.
    pub replayer: Arc<dyn Replayer>,
    /// Becomes true at shutdown; open event streams then end.
    pub stop: watch::Receiver<bool>,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Convergio",
    description = "Runs graphs of AI agents on a durable log.",
    license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
))]
struct ApiDoc;

fn api_routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(graphs::register_graph, graphs::list_graphs))
        .routes(routes!(graphs::show_graph))
        .routes(routes!(agents::define_agent, agents::list_agents))
        .routes(routes!(agents::show_agent, agents::terminate_agent))
        .routes(routes!(agents::run_agent))
        .routes(routes!(agents::stream_agent_events))
        .routes(routes!(runs::execute_graph))
        .routes(routes!(runs::show_graph_run))
        .routes(routes!(runs::list_runs))
        .routes(routes!(runs::show_run))
        .routes(routes!(runs::cancel_run))
        .routes(routes!(run_control::pause_run))
        .routes(routes!(run_control::resume_run))
        .routes(routes!(run_control::retry_run))
        .routes(routes!(amend::amend_run))
        .routes(routes!(run_control::signal_run))
        .routes(routes!(run_control::resolve_step))
        .routes(routes!(run_control::resume_graph_run))
        .routes(routes!(run_control::checkpoint_run))
        .routes(routes!(fork::fork_run))
        .routes(routes!(run_diff::show_run_state))
        .routes(routes!(run_diff::diff_runs))
        .routes(routes!(replay::replay_run))
        .routes(routes!(migrate::replay_fleet))
        .routes(routes!(migrate::migrate_run))
        .routes(routes!(export::export_run))
        .routes(routes!(events::list_events))
        .routes(routes!(events::stream_events))
        .routes(routes!(approvals::list_approvals))
        .routes(routes!(approvals::show_approval, approvals::answer_approval))
        .routes(routes!(memories::list_memories, memories::store_memory))
        .routes(routes!(memories::forget_memory))
        .routes(routes!(tokens::list_tokens, tokens::issue_token))
        .routes(routes!(tokens::rotate_token))
        .routes(routes!(tokens::revoke_token))
        .routes(routes!(billing::list_usage))
        .routes(routes!(billing::show_ledger))
        .routes(routes!(billing::list_audit_trail))
}

/// Returns the OpenAPI document of all routes but those of the compatible API.
pub fn openapi_document() -> Document {
    let mut document = public_routes().merge(api_routes()).split_for_parts().1;
    // utoipa cannot add a parameter to all operations, so it is added to the finished document.
    for path in document.paths.paths.values_mut() {
        [&mut path.post, &mut path.delete].into_iter().flatten().for_each(add_idempotency_key);
    }
    require_token(&mut document);
    document
}

/// Requires a bearer token for every operation except the health checks.
fn require_token(document: &mut Document) {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(TOKEN_SCHEME, SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new(TOKEN_SCHEME, [""; 0])]);
    for path in public_routes().split_for_parts().1.paths.paths.into_keys() {
        let operation = document.paths.paths.get_mut(&path).and_then(|path| path.get.as_mut());
        if let Some(operation) = operation {
            // An empty requirement overrides the document's default for this operation.
            operation.security = Some(vec![SecurityRequirement::default()]);
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
    let problem = Content::new(Some(Ref::from_schema_name("Problem")));
    let mismatch = ResponseBuilder::new()
        .description("The idempotency key was used for another request")
        .content("application/json", problem);
    operation.responses.responses.insert("422".to_owned(), mismatch.build().into());
}

fn public_routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(health::check_liveness))
        .routes(routes!(health::check_readiness))
}

/// Builds the router. Routes under `/v1` and those of the compatible API require a token; their
/// work runs on `work_runtime`, or on the runtime that accepts connections if there is none.
fn build_router(
    gateway: Arc<Gateway>,
    entrance: EdgeLayerState,
    work_runtime: Option<Handle>,
) -> Router {
    let (api, _) = api_routes().split_for_parts();
    let document = openapi_document();
    let operations = Arc::new(DeclaredParameters::from_document(&document));
    let guard = AuthLayerState {
        tokens: gateway.tokens.clone(),
        body_budget: BodyMemoryBudget::new(),
        work_runtime,
    };
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
    /// Runtime for authenticated requests; if `None`, they run on the runtime that accepts
    /// connections.
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
    let app = build_router(Arc::new(gateway), entrance, work_runtime);
    listen::serve_connections(listener, app, limits, tls, stop).await;
}

/// Waits until `stop` becomes true; a dropped sender counts as a stop.
pub(crate) async fn wait_for_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Extractor of the authenticated caller.
pub(crate) type Caller = Extension<auth::Identity>;
/// Extractor of the state that handlers share.
pub(crate) type App = State<Arc<Gateway>>;
