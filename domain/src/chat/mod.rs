//! A conversation with a model in the platform's own form, independent of any provider.
//!
//! - this file: [`ChatRequest`] and what it has besides messages.
//! - `part`: messages and their parts; `reply`: [`ChatReply`]; `service`: embeddings, transcription
//!   and speech.
//! - `field`: the optional fields, and their support by each provider interface.
//! - `limits`: published token limits of models.
//!
//! Provider dialects (executor) write their requests from these types, and the gateway's compatible
//! endpoints read theirs into them. The types are stored in the log: a field may be added with a
//! default, never renamed. No name of a provider's JSON belongs here except as a string value.

mod field;
mod limits;
mod part;
mod reply;
mod service;

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use field::{ChatField, FieldSupport, NATIVE_FIELDS};
pub use limits::{ModelLimit, ModelLimitTable};
pub use part::{
    AudioPart, ChatInterface, ChatMessage, FilePart, ImagePart, ImageUrlPart, MessagePart,
    MessageRole, NativeFields, NativePart, RefusalPart, TextPart, ThinkingPart, ToolCall,
    ToolResultPart,
};
pub use reply::ChatReply;
pub use service::{ModelService, PackedVector, RECORDING_LIMIT, ServiceReply};

/// A whole request to a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    /// `auto`, `local`, a provider's name, or `PROVIDER/MODEL`; in a call that is about to be sent,
    /// the name that the provider knows.
    pub model: String,
    /// System prompt before all messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Messages so far, the oldest first.
    pub messages: Vec<ChatMessage>,
    /// Tools that the model may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ChatToolSpec>,
    /// Requirement or prohibition of tool calls.
    #[serde(default, skip_serializing_if = "ToolChoice::is_auto")]
    pub tool_choice: ToolChoice,
    /// Most tokens of the answer; as many as the model has room for when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Sampling temperature, 0 to 2; the provider's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling, 0 to 1; the provider's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Sequences at which the answer ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Seed of the sampling, for providers that support one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// JSON Schema that the answer must satisfy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Name and strictness of the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_spec: Option<SchemaSpec>,
    /// True if the answer must be a JSON object, of any fields.
    #[serde(default, skip_serializing_if = "is_false")]
    pub json_object: bool,
    /// Reasoning effort: `low`, `medium`, `high`, as the provider names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    /// Tools that the provider runs itself, in the form of their interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub native_tools: Vec<NativePart>,
    /// Further fields. Their values have OpenAI's form or, where only Anthropic has the field,
    /// Anthropic's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<ChatField, Value>,
    /// Fields unknown to the platform, for providers whose operator lets them through.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra_body: Map<String, Value>,
    /// Models that are tried, in this order, if [`ChatRequest::model`] cannot answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<String>,
    /// Fields of the request that only the interface of its origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
    /// Interface by which the request arrived; absent for the platform's own agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<ChatInterface>,
    /// Service that is requested in place of an answer; there are no messages then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ModelService>,
    /// Places to which the conversation may be sent.
    #[serde(default, skip_serializing_if = "Privacy::is_any")]
    pub privacy: Privacy,
}

/// Description of an answer's schema.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaSpec {
    /// Name of the schema, which some providers require.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Purpose of the schema, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// True if the provider must enforce the schema; the provider's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl ChatRequest {
    /// Creates a request of one user prompt.
    pub fn from_prompt(model: impl Into<String>, prompt: impl Into<String>) -> Self {
        let messages = vec![ChatMessage::from_text(MessageRole::User, prompt)];
        Self { model: model.into(), messages, ..Self::default() }
    }
}

/// Places to which a conversation may be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privacy {
    /// Every configured provider.
    #[default]
    Any,
    /// Machines of the user or the operator only: no cloud, no proxy, no look-up of names.
    Local,
}

impl Privacy {
    /// True if nothing is restricted.
    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

impl FromStr for Privacy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Self::Any),
            "local" => Ok(Self::Local),
            _ => Err(format!("privacy is `any` or `local`, not `{text}`")),
        }
    }
}

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatToolSpec {
    /// Name, unique in the request.
    pub name: String,
    /// Purpose of the tool, for the model.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// JSON Schema of its arguments, an object.
    pub parameters: Value,
    /// True if the provider must enforce the schema; the provider's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Anthropic's `cache_control` of the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// Fields of the tool that only the interface of its origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

impl ChatToolSpec {
    /// Creates a tool from its name, its purpose and the schema of its arguments.
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: Value) -> Self {
        let (name, description) = (name.into(), description.into());
        Self { name, description, parameters, strict: None, cache_control: None, native: None }
    }
}

/// Requirement or prohibition of tool calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// The model may call tools.
    #[default]
    Auto,
    /// The model must not call a tool.
    None,
    /// The model must call some tool.
    Required,
    /// The model must call this tool.
    Named(String),
}

impl ToolChoice {
    /// True for the providers' default.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}
