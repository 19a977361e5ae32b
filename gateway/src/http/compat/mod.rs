//! The compatible APIs ("front doors"): the interfaces of OpenAI and Anthropic in front of the log.
//! Their SDKs work after a change of the base URL; each call is a run of a one-node graph, with its
//! usage and its charge.
//!
//! The way of a call: `endpoints` routes it, `serve` reads the body and drives the call, a
//! [`CompatDialect`] (`chat`, `messages`, `responses`) translates between its wire format and
//! [`ChatRequest`]/[`ChatReply`], and `compat_run` creates the run and follows it to its end.
//!
//! - `field_table`: declared fields of a dialect's requests; what is not declared is rejected.
//! - `conversation`, `request_parts`, `provider_urls`, `carrier`: parsing that dialects share.
//!   `carrier` transports what only another dialect understands.
//! - `reply_progress`, `run_watch`: events of a reply, from live notes and from the log.
//! - `refusal`, `error_format`: errors in each dialect's format.
//! - `stored_runs`, `stored_answers`: earlier calls, read from the log.
//! - `media`, `multipart`, `token_counting`: embeddings, speech, transcription; token estimates.
//! - `compat_graph`, `settings`: the graph that calls run; the operator's settings.
//!
//! No dialect knows another one, and none touches the log: `compat_run` and `stored_runs` do.

mod carrier;
mod chat;
mod compat_graph;
mod compat_run;
mod conversation;
mod endpoints;
mod error_format;
mod field_table;
mod media;
mod messages;
mod multipart;
mod provider_urls;
mod refusal;
mod reply_progress;
mod request_parts;
mod responses;
mod run_watch;
mod serve;
mod settings;
mod stored_answers;
mod stored_runs;
#[cfg(test)]
mod tests;
mod token_counting;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::http::HeaderMap;
use convergio_domain::chat::{ChatReply, ChatRequest, ToolCall};
use convergio_domain::id::TenantId;
use convergio_domain::json::read_json;
use serde_json::{Map, Value, json};

use crate::app::Gateway;
use compat_graph::CompatGraph;
use compat_run::{CallFailure, ReplyHead};
pub(crate) use error_format::ErrorFormat;
use field_table::{FieldPath, ObjectSpec, RequestFields};
use refusal::CompatRefusal;
pub(crate) use refusal::DialectBodyMarker;
use reply_progress::{PartEvent, PartStart};
use run_watch::RunWatch;
pub use settings::CompatSettings;
use stored_runs::StoredRuns;

/// A model that callers may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// Name of the model, as `PROVIDER/MODEL`.
    pub id: String,
    /// Name of the provider.
    pub owner: String,
}

/// The models that callers may name; implemented by the composition root.
#[async_trait]
pub trait ModelDirectory: Send + Sync {
    /// Lists the models that a tenant can call now.
    async fn list_models(&self, tenant: &TenantId) -> Vec<ModelEntry>;
}

/// A directory without models, for tests and tools.
#[async_trait]
impl ModelDirectory for () {
    async fn list_models(&self, _tenant: &TenantId) -> Vec<ModelEntry> {
        Vec::new()
    }
}

/// State that the handlers of the compatible APIs share.
#[derive(Clone)]
pub(crate) struct CompatState {
    gateway: Arc<Gateway>,
    run_watch: Arc<RunWatch>,
    graph: Arc<CompatGraph>,
}

/// Returns the routes that require a token. The OpenAPI document leaves them out: they are
/// specified by OpenAI and Anthropic.
pub(crate) fn compat_routes(gateway: Arc<Gateway>) -> Router<Arc<Gateway>> {
    let watch = Arc::new(RunWatch::new(gateway.repository.event_log(), gateway.stop.clone()));
    endpoints::token_routes(CompatState {
        gateway,
        run_watch: watch,
        graph: Arc::new(CompatGraph::new()),
    })
}

/// Returns the routes that need no token, by which SDKs and tools probe for the API.
pub(crate) fn probe_routes() -> Router<Arc<Gateway>> {
    endpoints::probe_routes()
}

/// A request as a dialect reads it.
struct DialectRequest<'a> {
    body: &'a Value,
    headers: &'a HeaderMap,
    settings: &'a CompatSettings,
    /// Earlier calls that the body refers to.
    stored: &'a StoredRuns,
}

impl<'a> DialectRequest<'a> {
    /// Reads the body's fields by a table, and the undeclared ones if the operator lets them pass.
    fn read_fields(
        &self,
        table: &'static ObjectSpec,
    ) -> Result<(RequestFields<'a>, Map<String, Value>), CompatRefusal> {
        if !self.settings.passes_unknown_fields {
            return Ok((RequestFields::read_known(self.body, FieldPath::ROOT, table)?, Map::new()));
        }
        // Any field but the declared ones goes to the provider under its own name.
        let (fields, unknown) =
            RequestFields::read_with_unknown(self.body, FieldPath::ROOT, table)?;
        let rest = unknown.into_iter().map(|(name, value)| (name.clone(), value.clone()));
        Ok((fields, rest.collect()))
    }
}

/// A reply to be rendered in one piece.
struct WholeReply<'a> {
    run: &'a str,
    reply: &'a ChatReply,
    /// Model that answered: the provider's own name of it, otherwise the requested one.
    model: &'a str,
}

/// The wire format of one API: parses its requests and renders its replies. A value of it holds the
/// state of one call.
trait CompatDialect: Send + 'static {
    /// Format of its errors.
    const ERROR_FORMAT: ErrorFormat;

    /// Returns the ids of earlier runs that a body refers to.
    fn referenced_runs(_body: &Value) -> Vec<&str> {
        Vec::new()
    }

    /// Reads a request.
    ///
    /// # Errors
    /// A refusal that names the field.
    fn read_request(
        dialect_request: &DialectRequest<'_>,
    ) -> Result<(ChatRequest, Self), CompatRefusal>
    where
        Self: Sized;

    /// True if the caller wants the reply as a stream.
    fn is_streaming(&self) -> bool;

    /// Names of request fields that have no effect here and are dropped.
    fn left_out(&self) -> &[String] {
        &[]
    }

    /// Returns the request fields that the reply repeats; they are stored with the run, so that the
    /// reply can be rendered again later.
    fn request_echo(&self) -> Value {
        json!({})
    }

    /// Renders a reply in one piece.
    fn render_reply(&self, answered: &WholeReply<'_>) -> Value;

    /// Renders the events before the first part.
    fn render_start(&mut self, run: &str, head: &ReplyHead) -> Vec<DialectEvent>;

    /// Renders an event of a part that began as `open_part`.
    fn render_part(&mut self, part_start: &PartStart, event: &PartEvent) -> Vec<DialectEvent>;

    /// Renders the events that end a stream.
    fn render_end(&mut self, reply: &ChatReply) -> Vec<DialectEvent>;

    /// Renders the event that breaks a stream off.
    fn render_failure(&mut self, failure: &CallFailure) -> DialectEvent;
}

/// A server-sent event of a dialect.
struct DialectEvent {
    /// Event name, in dialects that name their events.
    name: Option<&'static str>,
    data: String,
}

impl DialectEvent {
    fn from_data(data: &Value) -> Self {
        Self { name: None, data: data.to_string() }
    }

    fn from_named_data(name: &'static str, data: &Value) -> Self {
        Self { name: Some(name), data: data.to_string() }
    }
}

/// Returns a tool call's arguments as a JSON object, which every dialect requires. If a model wrote
/// something else, it is kept as text under [`RAW_ARGUMENTS`].
fn arguments_json(call: &ToolCall) -> String {
    let text = call.arguments.trim();
    // Models sometimes write truncated JSON, or a list.
    match read_json::<Value>(text.as_bytes()) {
        Ok(Value::Object(_)) => call.arguments.clone(),
        _ if text.is_empty() => "{}".to_owned(),
        _ => json!({RAW_ARGUMENTS: call.arguments}).to_string(),
    }
}

/// Field that holds arguments which are no JSON object.
const RAW_ARGUMENTS: &str = "_raw_arguments";

/// The current time in seconds since the epoch.
fn unix_seconds() -> u64 {
    u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0)
}
