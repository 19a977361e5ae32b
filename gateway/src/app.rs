//! The router, the state that handlers share, and the OpenAPI document.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, Uri};
use axum::{Extension, Router, middleware};
use convergio_evaluation::Evaluator;
use convergio_eventstore::{HealthRegistry, LiveHub, Repository};
use convergio_projections::{Memories, Queries};
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

use crate::answers;
use crate::auth::{self, Tokens};
use crate::bodies::BodyRoom;
use crate::entrance::{self, Entrance, Guard};
use crate::hosts::Hosts;
use crate::http::front::{self, DoorSettings, Form, ModelDirectory};
use crate::http::replay::Replayer;
use crate::http::{
    agents, amend, approvals, billing, branches, events, export, fork, graphs, health, memories,
    migrate, replay, runs, steer, tokens,
};
use crate::listen::{self, Limits};
use crate::parameters::{self, Parameters};
use crate::problem::ApiError;
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
    pub memories: Arc<Memories>,
    /// Health of the process's background loops.
    pub health: HealthRegistry,
    /// Live progress of model calls, which the log does not hold.
    pub live: LiveHub,
    /// Parses manifests and validates inputs under limits of time and memory.
    pub evaluator: Evaluator,
    /// Access tokens and the tenant, actor and roles that each stands for.
    pub tokens: Tokens,
    /// Models that callers may name.
    pub models: Arc<dyn ModelDirectory>,
    /// Settings of the OpenAI and Anthropic compatible API.
    pub doors: DoorSettings,
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

fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(graphs::register, graphs::list))
        .routes(routes!(graphs::show))
        .routes(routes!(agents::create, agents::list))
        .routes(routes!(agents::show, agents::terminate))
        .routes(routes!(agents::run))
        .routes(routes!(agents::stream))
        .routes(routes!(runs::execute))
        .routes(routes!(runs::status))
        .routes(routes!(runs::list))
        .routes(routes!(runs::show))
        .routes(routes!(runs::cancel))
        .routes(routes!(steer::pause))
        .routes(routes!(steer::resume))
        .routes(routes!(steer::retry))
        .routes(routes!(amend::amend))
        .routes(routes!(steer::signal))
        .routes(routes!(steer::resolve))
        .routes(routes!(steer::resume_of_graph))
        .routes(routes!(steer::checkpoint))
        .routes(routes!(fork::fork))
        .routes(routes!(branches::state))
        .routes(routes!(branches::diff))
        .routes(routes!(replay::replay))
        .routes(routes!(migrate::fleet))
        .routes(routes!(migrate::migrate))
        .routes(routes!(export::export))
        .routes(routes!(events::list))
        .routes(routes!(events::stream))
        .routes(routes!(approvals::list))
        .routes(routes!(approvals::show, approvals::answer))
        .routes(routes!(memories::list, memories::store))
        .routes(routes!(memories::forget))
        .routes(routes!(tokens::list, tokens::issue))
        .routes(routes!(tokens::rotate))
        .routes(routes!(tokens::revoke))
        .routes(routes!(billing::usage))
        .routes(routes!(billing::ledger))
        .routes(routes!(billing::audit))
}

/// Returns the OpenAPI document of all routes but those of the compatible API.
pub fn openapi() -> Document {
    let mut document = open_routes().merge(routes()).split_for_parts().1;
    // utoipa cannot add a parameter to all operations, so it is added to the finished document.
    for path in document.paths.paths.values_mut() {
        [&mut path.post, &mut path.delete].into_iter().flatten().for_each(take_key);
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
    for path in open_routes().split_for_parts().1.paths.paths.into_keys() {
        let operation = document.paths.paths.get_mut(&path).and_then(|path| path.get.as_mut());
        if let Some(operation) = operation {
            // An empty requirement overrides the document's default for this operation.
            operation.security = Some(vec![SecurityRequirement::default()]);
        }
    }
}

/// Documents the `Idempotency-Key` header and its mismatch error on an operation that writes.
fn take_key(operation: &mut Operation) {
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

fn open_routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
}

/// Builds the router. Routes under `/v1` and those of the compatible API require a token; their
/// work runs on `work_runtime`, or on the runtime that accepts connections if there is none.
fn router(gateway: Arc<Gateway>, entrance: Entrance, work_runtime: Option<Handle>) -> Router {
    let (guarded, _) = routes().split_for_parts();
    let document = openapi();
    let operations = Arc::new(Parameters::of(&document));
    let guard = Guard { tokens: gateway.tokens.clone(), room: BodyRoom::new(), work_runtime };
    let known = || middleware::from_fn_with_state(operations.clone(), parameters::refuse_unknown);
    // Layers apply from the last to the first: a request is authenticated, then its parameters are
    // checked, then its idempotency key is looked up. Parameters come before the key so that a
    // rejected request binds no key.
    let guarded = guarded
        .layer(middleware::from_fn_with_state(Arc::clone(&gateway), answers::answer_once))
        .layer(known())
        .merge(front::routes(Arc::clone(&gateway)))
        .layer(middleware::from_fn_with_state(Arc::new(guard), entrance::admit));
    let (open, _) = open_routes().split_for_parts();
    // The layer is applied again: a layer covers only the routes added before it.
    let open = open.layer(known());
    // Serialised once: the document never changes while the process runs.
    let document = Arc::new(document.to_json().unwrap_or_default());
    let document = axum::routing::get(move || {
        let document = Arc::clone(&document);
        async move { ([("content-type", "application/json")], document.to_string()) }
    });
    guarded
        .merge(open)
        .merge(front::open_routes())
        .route("/openapi.json", document)
        .fallback(no_such_path)
        .method_not_allowed_fallback(async || {
            ApiError::new(error_code::METHOD_NOT_ALLOWED, "see /openapi.json for what is offered")
        })
        .layer(middleware::from_fn_with_state(Arc::new(entrance), entrance::enter))
        .with_state(gateway)
}

/// Answers 404 for unknown paths; below the compatible API it names what was asked for, since SDKs
/// show the message to their users.
async fn no_such_path(method: Method, uri: Uri) -> ApiError {
    let detail = match Form::of_path(uri.path()) {
        Some(_) => format!("`{method} {}` is not available here", uri.path()),
        None => "there is no such path".to_owned(),
    };
    ApiError::new(error_code::NOT_FOUND, detail)
}

/// Options of [`serve_gateway`]: limits, TLS, hosts and runtime.
#[derive(Clone, Default)]
pub struct ServeOptions {
    /// Limits on connections and on slow callers.
    pub limits: Limits,
    /// TLS configuration; connections are plain text if `None`.
    pub tls: Option<Tls>,
    /// Values of the `Host` header that are accepted.
    pub hosts: Hosts,
    /// Runtime for authenticated requests; if `None`, they run on the runtime that accepts
    /// connections.
    pub work_runtime: Option<Handle>,
}

/// Serves until `stop` becomes true, then lets open requests finish.
pub async fn serve(
    listener: TcpListener,
    gateway: Gateway,
    options: ServeOptions,
    stop: watch::Receiver<bool>,
) {
    let ServeOptions { limits, tls, hosts, work_runtime } = options;
    let entrance = Entrance { hosts, limits, is_encrypted: tls.is_some() };
    let app = router(Arc::new(gateway), entrance, work_runtime);
    listen::serve(listener, app, limits, tls, stop).await;
}

/// Waits until `stop` becomes true; a dropped sender counts as a stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Extractor of the authenticated caller.
pub(crate) type Caller = Extension<auth::Identity>;
/// Extractor of the state that handlers share.
pub(crate) type App = State<Arc<Gateway>>;
