//! The application: its state, its routes, its life.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Extension, Router};
use convergio_evaluation::Evaluator;
use convergio_eventstore::{HealthRegistry, LiveHub, Repository};
use convergio_projections::{Memories, Queries};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::Instrument;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, ObjectBuilder, OpenApi as Document, Ref, ResponseBuilder, schema::Type,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::answers;
use crate::auth::{self, Tokens};
use crate::bodies::{self, BodyRoom};
use crate::hosts::{self, Hosts};
use crate::http::front::{self, DoorSettings, Form, ModelDirectory};
use crate::http::replay::Replayer;
use crate::http::{
    agents, amend, approvals, billing, branches, events, export, fork, graphs, health, memories,
    migrate, replay, runs, steer, tokens,
};
use crate::listen::{self, Limits};
use crate::parameters::{self, Parameters};
use crate::problem::{ApiError, RequestId};
use crate::response_headers::{IsEncrypted, add_security_headers};
use crate::tls::Tls;
use crate::work_runtime;
use convergio_schemas::error_code;

/// Bytes of a run's inputs at most; manifests have a smaller limit of their own.
pub(crate) const BODY_LIMIT: usize = 20 << 20;
/// How the OpenAPI document names the token of a caller.
const TOKEN_SCHEME: &str = "token";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the handlers share.
#[derive(Clone)]
pub struct Gateway {
    /// Where commands go.
    pub repository: Repository,
    /// Where answers come from.
    pub queries: Queries,
    /// What is remembered.
    pub memories: Arc<Memories>,
    /// Which loops of the process fail now.
    pub health: HealthRegistry,
    /// Progress that is not in the log.
    pub live: LiveHub,
    /// Where manifests and inputs are checked.
    pub evaluator: Evaluator,
    /// Who may come in, and as which tenant.
    pub tokens: Tokens,
    /// Which models can be asked.
    pub models: Arc<dyn ModelDirectory>,
    /// What the operator says of the front doors.
    pub doors: DoorSettings,
    /// What computes runs again.
    pub replayer: Arc<dyn Replayer>,
    /// Tells streams to end.
    pub stop: watch::Receiver<bool>,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Convergio",
    description = "Runs graphs of AI agents on a durable log.",
    license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
))]
struct ApiDoc;

fn routes() -> OpenApiRouter<Gateway> {
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

/// The OpenAPI document of all routes.
pub fn openapi() -> Document {
    let mut document = open_routes().merge(routes()).split_for_parts().1;
    for path in document.paths.paths.values_mut() {
        [&mut path.post, &mut path.delete].into_iter().flatten().for_each(take_key);
    }
    require_token(&mut document);
    document
}

/// Every operation asks for a token, but those that tell of the server's health.
fn require_token(document: &mut Document) {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(TOKEN_SCHEME, SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new(TOKEN_SCHEME, [""; 0])]);
    for path in open_routes().split_for_parts().1.paths.paths.into_keys() {
        let operation = document.paths.paths.get_mut(&path).and_then(|path| path.get.as_mut());
        if let Some(operation) = operation {
            operation.security = Some(vec![SecurityRequirement::default()]);
        }
    }
}

/// Every operation that changes something takes an idempotency key.
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

fn open_routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
}

/// All routes: those under `/v1` and the front doors ask for a token. What is asked for with one
/// is worked on in another runtime, if one is named.
fn router(gateway: Gateway, work_runtime: Option<Handle>) -> Router {
    let (guarded, _) = routes().split_for_parts();
    let document = openapi();
    let operations = Arc::new(Parameters::of(&document));
    let known = || middleware::from_fn_with_state(operations.clone(), parameters::refuse_unknown);
    let guarded = guarded
        .layer(middleware::from_fn_with_state(gateway.clone(), answers::answer_once))
        .layer(known())
        .merge(front::routes(gateway.clone()))
        .layer(middleware::from_fn_with_state(BodyRoom::new(), bodies::find_room));
    let guarded = match work_runtime {
        Some(runtime) => {
            guarded.layer(middleware::from_fn_with_state(runtime, work_runtime::hand_over))
        }
        None => guarded,
    };
    let guarded = guarded
        .layer(middleware::from_fn_with_state(gateway.clone(), auth::authenticate))
        .layer(DefaultBodyLimit::max(BODY_LIMIT));
    let (open, _) = open_routes().split_for_parts();
    let open = open.layer(known());
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
        .layer(middleware::from_fn(with_request_id))
        .with_state(gateway)
}

/// What is not there. Below a door its client is told what it asked for.
async fn no_such_path(method: Method, uri: Uri) -> ApiError {
    let detail = match Form::of_path(uri.path()) {
        Some(_) => format!("`{method} {}` is not available here", uri.path()),
        None => "there is no such path".to_owned(),
    };
    ApiError::new(error_code::NOT_FOUND, detail)
}

/// Every request has an id, in its answer and in the server's log.
async fn with_request_id(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let usable = |id: &&str| !id.is_empty() && id.len() <= 100 && id.is_ascii();
    let id = given.filter(usable).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = request.method().clone();
    let form = Form::of_path(request.uri().path());
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
    let mut response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    crate::problem::stamp(&mut response, &id, form);
    if let Ok(value) = HeaderValue::from_str(&id) {
        let headers = response.headers_mut();
        // At a door a call's id is that of its run.
        if let Some(form) = form {
            headers.entry(form.request_id_header()).or_insert_with(|| value.clone());
        }
        headers.entry(REQUEST_ID).or_insert(value);
    }
    tracing::debug!(%method, path, status = response.status().as_u16(), request_id = id);
    response
}

/// How a gateway is served.
#[derive(Clone, Default)]
pub struct ServeOptions {
    /// What callers are held to.
    pub limits: Limits,
    /// How connections are encrypted; nothing without.
    pub tls: Option<Tls>,
    /// The names by which it may be asked.
    pub hosts: Hosts,
    /// Where requests are worked on; where they arrive without.
    pub work_runtime: Option<Handle>,
}

/// Serves until `stop` says true, then ends orderly.
pub async fn serve(
    listener: TcpListener,
    gateway: Gateway,
    options: ServeOptions,
    stop: watch::Receiver<bool>,
) {
    let ServeOptions { limits, tls, hosts, work_runtime } = options;
    let patience =
        middleware::from_fn(move |request, next| listen::impatient(limits, request, next));
    let is_encrypted = IsEncrypted(tls.is_some());
    let app = router(gateway, work_runtime)
        .layer(patience)
        .layer(middleware::from_fn_with_state(hosts, hosts::check_host))
        .layer(middleware::from_fn_with_state(is_encrypted, add_security_headers));
    listen::serve(listener, app, limits, tls, stop).await;
}

/// Waits for the word to stop; whoever could say it being gone means the same.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// What a handler knows of its caller.
pub(crate) type Caller = Extension<auth::Identity>;
/// The state in handlers.
pub(crate) type App = State<Gateway>;
