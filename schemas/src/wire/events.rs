//! Events as clients see them, with the names of CloudEvents 1.0 where they fit.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventEnvelope {
    /// Id of the event, a UUIDv7.
    pub id: String,
    /// Tenant that owns the event.
    pub tenant: String,
    /// The stream, as `run/<uuid>`.
    pub stream: String,
    /// Dense in the stream, from 1.
    pub seq: u64,
    /// The place in the whole log; opaque, ordered.
    pub position: u64,
    /// The type with its version, as `run.step.completed.v1`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it occurred, RFC 3339.
    pub time: String,
    /// When the log took it.
    pub recorded_at: String,
    /// Actor who caused the event.
    pub actor: String,
    /// Data of the event, by its type.
    pub data: Value,
    /// The payloads of its commit, on the commit's first event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payloads: Vec<PayloadView>,
}

/// A payload that lies sealed beside the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PayloadView {
    /// The reference that event data use.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Commitment to the content: SHA-256(salt ‖ plaintext).
    pub commitment: String,
    /// Bytes of the plaintext.
    pub bytes: u64,
    /// Media type of the content.
    pub media_type: String,
    /// Why it is kept.
    pub purpose: String,
    /// The plaintext as JSON, when it was asked for and was not erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
}

/// How far a model has come with its answer. Not in the log; who misses one misses nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgressNote {
    /// Name of the step, as `summarise` or `notes[3]`.
    pub step: String,
    /// Tokens of the answer so far.
    pub tokens_out: u64,
    /// The new piece of text.
    pub text: String,
}

/// One message of a WebSocket stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Frame {
    /// An event of the log.
    Event(EventEnvelope),
    /// Progress that is not in the log.
    Progress(ProgressNote),
}
