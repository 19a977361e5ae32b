//! The application: its state, its routes, its life.

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

/// Bytes of a run's inputs at most; manifests have a smaller limit of their own.
pub(crate) const BODY_LIMIT: usize = 20 << 20;
/// How the OpenAPI document names the token of a caller.
const TOKEN_SCHEME: &str = "token";

/// What the handlers share. Every request takes hold of it, so it is shared as a whole: its parts
/// are counted references, and all threads would count them.
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

fn open_routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
}

/// All routes: those under `/v1` and the front doors ask for a token. What is asked for with one
/// is worked on in another runtime, if one is named.
fn router(gateway: Arc<Gateway>, entrance: Entrance, work_runtime: Option<Handle>) -> Router {
    let (guarded, _) = routes().split_for_parts();
    let document = openapi();
    let operations = Arc::new(Parameters::of(&document));
    let guard = Guard { tokens: gateway.tokens.clone(), room: BodyRoom::new(), work_runtime };
    let known = || middleware::from_fn_with_state(operations.clone(), parameters::refuse_unknown);
    let guarded = guarded
        .layer(middleware::from_fn_with_state(Arc::clone(&gateway), answers::answer_once))
        .layer(known())
        .merge(front::routes(Arc::clone(&gateway)))
        .layer(middleware::from_fn_with_state(Arc::new(guard), entrance::admit));
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
        .layer(middleware::from_fn_with_state(Arc::new(entrance), entrance::enter))
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
    let entrance = Entrance { hosts, limits, is_encrypted: tls.is_some() };
    let app = router(Arc::new(gateway), entrance, work_runtime);
    listen::serve(listener, app, limits, tls, stop).await;
}

/// Waits for the word to stop; whoever could say it being gone means the same.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// What a handler knows of its caller.
pub(crate) type Caller = Extension<auth::Identity>;
/// The state in handlers.
pub(crate) type App = State<Arc<Gateway>>;
