//! A conversation with a model in the platform's own form: every provider's dialect is written
//! from it, and every front door reads into it.

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
pub use limits::{ModelLimit, ModelLimits};
pub use part::{
    AudioPart, FilePart, ImagePart, ImageUrlPart, Interface, Message, NativeFields, NativePart,
    Part, RefusalPart, Role, TextPart, ThinkingPart, ToolCall, ToolResultPart,
};
pub use reply::ChatReply;
pub use service::{ModelService, PackedVector, RECORDING_LIMIT, ServiceReply};

/// A question to a model, whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    /// The model: `auto`, `local`, a provider's name, or `PROVIDER/MODEL`; in a call that is
    /// about to be made, the name that the provider knows.
    pub model: String,
    /// The system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// What was said so far, the oldest first.
    pub messages: Vec<Message>,
    /// Tools that the model may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolSpec>,
    /// Whether it may, must or must not ask for one.
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
    /// Texts at which the answer ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Seed of the sampling, for providers that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// JSON Schema of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// What the caller says of the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_spec: Option<SchemaSpec>,
    /// Whether the answer must be a JSON object, whatever its fields.
    #[serde(default, skip_serializing_if = "is_false")]
    pub json_object: bool,
    /// How much a reasoning model may think: `low`, `medium`, `high`, as the provider names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    /// Tools that the provider runs itself, as their interface names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub native_tools: Vec<NativePart>,
    /// Further fields, with their values in the words of OpenAI or, where only Anthropic has the
    /// field, of Anthropic.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<ChatField, Value>,
    /// Fields that the platform does not know, for providers whose operator lets them through.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra_body: Map<String, Value>,
    /// Models that are asked, in this order, when [`ChatRequest::model`] cannot answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<String>,
    /// What only the interface that it came by can say of the request as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
    /// The interface that the request came by; absent for the platform's own agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<Interface>,
    /// What is asked for in place of an answer. Nothing is said then, and nothing limits an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ModelService>,
    /// Where the conversation may travel.
    #[serde(default, skip_serializing_if = "Privacy::is_any")]
    pub privacy: Privacy,
}

/// What a caller says of the schema of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaSpec {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether the answer must keep to it; the provider's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl ChatRequest {
    /// One prompt to a model.
    pub fn prompt(model: impl Into<String>, prompt: impl Into<String>) -> Self {
        let messages = vec![Message::text(Role::User, prompt)];
        Self { model: model.into(), messages, ..Self::default() }
    }
}

/// Where a conversation may travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privacy {
    /// To every provider that is configured.
    #[default]
    Any,
    /// To machines of the person or the operator only: no cloud, no proxy, no look-up of names.
    Local,
}

impl Privacy {
    /// Whether nothing is restricted.
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

/// A tool that the model may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolSpec {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// JSON Schema of its arguments, an object.
    pub parameters: Value,
    /// Whether its arguments must keep to the schema; the provider's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Anthropic's `cache_control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// What only the interface that it came by can say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

impl ToolSpec {
    /// A tool by its name, what it is for and the schema of its arguments.
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: Value) -> Self {
        let (name, description) = (name.into(), description.into());
        Self { name, description, parameters, strict: None, cache_control: None, native: None }
    }
}

/// Whether the model may ask for tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// It may.
    #[default]
    Auto,
    /// It must not.
    None,
    /// It must ask for some tool.
    Required,
    /// It must ask for this one.
    Named(String),
}

impl ToolChoice {
    /// Whether nothing is demanded.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}
