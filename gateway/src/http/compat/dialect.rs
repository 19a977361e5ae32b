//! What a dialect is: how it reads requests and renders replies.

use axum::http::HeaderMap;
use convergio_domain::chat::{ChatReply, ChatRequest, ToolCall};
use convergio_domain::json::read_json;
use serde_json::{Map, Value, json};

use super::compat_run::ReplyHead;
use super::error_format::ErrorFormat;
use super::field_table::{FieldPath, ObjectSpec, RequestFields};
use super::refusal::{CallFailure, CompatRefusal};
use super::reply_progress::{PartEvent, PartStart};
use super::settings::CompatSettings;
use super::stored_runs::StoredRuns;

/// A request as a dialect reads it.
pub(super) struct DialectRequest<'a> {
    pub(super) body: &'a Value,
    pub(super) headers: &'a HeaderMap,
    pub(super) settings: &'a CompatSettings,
    /// Earlier calls that the body refers to.
    pub(super) stored: &'a StoredRuns,
}

impl<'a> DialectRequest<'a> {
    /// Reads the body's fields by a table, and the undeclared ones if the operator lets them pass.
    pub(super) fn read_fields(
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
pub(super) struct WholeReply<'a> {
    pub(super) run: &'a str,
    pub(super) reply: &'a ChatReply,
    /// Model that answered: the provider's own name of it, otherwise the requested one.
    pub(super) model: &'a str,
}

/// The wire format of one API: parses its requests and renders its replies. A value of it holds the
/// state of one call.
pub(super) trait CompatDialect: Send + 'static {
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
pub(super) struct DialectEvent {
    /// Event name, in dialects that name their events.
    pub(super) name: Option<&'static str>,
    pub(super) data: String,
}

impl DialectEvent {
    pub(super) fn from_data(data: &Value) -> Self {
        Self { name: None, data: data.to_string() }
    }

    pub(super) fn from_named_data(name: &'static str, data: &Value) -> Self {
        Self { name: Some(name), data: data.to_string() }
    }
}

/// Returns a tool call's arguments as a JSON object, which every dialect requires. If a model wrote
/// something else, it is kept as text under [`RAW_ARGUMENTS`].
pub(super) fn arguments_json(call: &ToolCall) -> String {
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
pub(super) fn unix_seconds() -> u64 {
    u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0)
}
