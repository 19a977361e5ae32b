//! Front doors: the interfaces of OpenAI and Anthropic in front of the log. Any SDK of theirs works
//! by changing its base URL; each call is a run of one node, with its usage and its charge.

mod carrier;
mod chat;
mod conversation;
mod counting;
mod door_graph;
mod endpoints;
mod forms;
mod known;
mod listing;
mod media;
mod messages;
mod multipart;
mod parts;
mod progress;
mod refusal;
mod responses;
mod serve;
mod settings;
mod stored;
#[cfg(test)]
mod tests;
mod turn;
mod urls;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::http::HeaderMap;
use convergio_domain::chat::{ChatReply, ChatRequest, ToolCall};
use convergio_domain::id::TenantId;
use convergio_domain::json::read_json;
use serde_json::{Map, Value, json};

use crate::app::Gateway;
use door_graph::DoorGraph;
pub(crate) use forms::Form;
use known::{Fields, Object, Path};
use progress::{PartEvent, PartStart};
pub(crate) use refusal::InDialect;
use refusal::Refusal;
pub use settings::DoorSettings;
use stored::StoredRuns;
use turn::{CallFailure, Head};
use watch::Watch;

/// A model that callers may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// The name: `PROVIDER/MODEL`.
    pub id: String,
    /// The provider.
    pub owner: String,
}

/// Which models there are, as the root of the program knows them.
#[async_trait]
pub trait ModelDirectory: Send + Sync {
    /// The models that a tenant can ask now.
    async fn models(&self, tenant: &TenantId) -> Vec<ModelEntry>;
}

/// No models.
#[async_trait]
impl ModelDirectory for () {
    async fn models(&self, _tenant: &TenantId) -> Vec<ModelEntry> {
        Vec::new()
    }
}

/// What the doors share.
#[derive(Clone)]
pub(crate) struct Front {
    gateway: Arc<Gateway>,
    watch: Arc<Watch>,
    graph: Arc<DoorGraph>,
}

/// The routes of all doors. They are the interfaces of others: our document does not describe them.
pub(crate) fn routes(gateway: Arc<Gateway>) -> Router<Arc<Gateway>> {
    let watch = Arc::new(Watch::new(gateway.repository.log(), gateway.stop.clone()));
    endpoints::routes(Front { gateway, watch, graph: Arc::new(DoorGraph::new()) })
}

/// What needs no token: whether there is a door at all.
pub(crate) fn open_routes() -> Router<Arc<Gateway>> {
    endpoints::open_routes()
}

/// A call as it came.
struct DoorRequest<'a> {
    body: &'a Value,
    headers: &'a HeaderMap,
    settings: &'a DoorSettings,
    /// Calls of earlier that it names.
    stored: &'a StoredRuns,
}

impl<'a> DoorRequest<'a> {
    /// The fields of the body, and those that nobody knows, if the operator lets them through.
    fn fields(&self, table: &'static Object) -> Result<(Fields<'a>, Map<String, Value>), Refusal> {
        if !self.settings.passes_unknown_fields {
            return Ok((Fields::read(self.body, Path::ROOT, table)?, Map::new()));
        }
        let (fields, rest) = Fields::read_open(self.body, Path::ROOT, table)?;
        let rest = rest.into_iter().map(|(name, value)| (name.clone(), value.clone()));
        Ok((fields, rest.collect()))
    }
}

/// An answer that is told whole.
struct Answered<'a> {
    run: &'a str,
    reply: &'a ChatReply,
    /// Who answered: the provider's own word, or the name that it was asked for by.
    model: &'a str,
}

/// The interface that a door speaks.
trait Door: Send + 'static {
    /// The form of its errors.
    const FORM: Form;

    /// Ids of calls of earlier that a body names.
    fn references(_body: &Value) -> Vec<&str> {
        Vec::new()
    }

    /// Reads a request.
    fn read(asked: &DoorRequest<'_>) -> Result<(ChatRequest, Self), Refusal>
    where
        Self: Sized;

    /// Whether the answer is wanted piece by piece.
    fn streams(&self) -> bool;

    /// What of the request changes nothing here, and is left out.
    fn left_out(&self) -> &[String] {
        &[]
    }

    /// What the answer repeats of the request, kept for those who ask for it later.
    fn echo(&self) -> Value {
        json!({})
    }

    /// A whole answer.
    fn whole(&self, answered: &Answered<'_>) -> Value;

    /// The events before the first part.
    fn begin(&mut self, run: &str, head: &Head) -> Vec<Event>;

    /// The events of what happens to a part that began as `open`.
    fn part(&mut self, open: &PartStart, event: &PartEvent) -> Vec<Event>;

    /// The events of the end.
    fn end(&mut self, reply: &ChatReply) -> Vec<Event>;

    /// The event of an end that is none.
    fn broken(&mut self, failure: &CallFailure) -> Event;
}

/// An event of a stream.
struct Event {
    /// Its name, for interfaces that name their events.
    name: Option<&'static str>,
    data: String,
}

impl Event {
    fn data(data: &Value) -> Self {
        Self { name: None, data: data.to_string() }
    }

    fn named(name: &'static str, data: &Value) -> Self {
        Self { name: Some(name), data: data.to_string() }
    }
}

/// The arguments of a call as every interface has them: a JSON object. What a model wrote in its
/// place is told as it is, under a name that says so.
fn arguments(call: &ToolCall) -> String {
    let text = call.arguments.trim();
    match read_json::<Value>(text.as_bytes()) {
        Ok(Value::Object(_)) => call.arguments.clone(),
        _ if text.is_empty() => "{}".to_owned(),
        _ => json!({RAW_ARGUMENTS: call.arguments}).to_string(),
    }
}

/// The field under which arguments travel that are no JSON object.
const RAW_ARGUMENTS: &str = "_raw_arguments";

/// The seconds of now.
fn now() -> u64 {
    u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0)
}
