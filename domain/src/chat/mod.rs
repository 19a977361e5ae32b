//! A conversation with a model in the platform's own form: every provider's dialect is written
//! from it, and every front door reads into it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::metering::Usage;

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
    /// How much a reasoning model may think: `low`, `medium`, `high`, as the provider names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    /// Where the conversation may travel.
    #[serde(default, skip_serializing_if = "Privacy::is_any")]
    pub privacy: Privacy,
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

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The person, or the program that speaks for them; tools' results too.
    User,
    /// The model.
    Assistant,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said, in order.
    pub parts: Vec<Part>,
}

impl Message {
    /// A turn of text alone.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, parts: vec![Part::Text { text: text.into() }] }
    }
}

/// A part of a turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image as bytes.
    Image {
        /// Its media type, as `image/png`.
        media_type: String,
        /// The bytes in base64.
        data: String,
    },
    /// An image that the provider fetches itself.
    ImageUrl {
        /// Where it is.
        url: String,
    },
    /// The model asks for a tool.
    ToolCall(ToolCall),
    /// What a tool answered.
    ToolResult {
        /// The call's id.
        id: String,
        /// The tool's name.
        #[serde(default)]
        name: String,
        /// The answer.
        text: String,
        /// Whether the tool failed.
        #[serde(default)]
        is_error: bool,
    },
    /// What a reasoning model thought, with the provider's mark that it must get back unchanged.
    Thinking {
        /// The thought.
        text: String,
        /// The mark.
        #[serde(default)]
        signature: String,
    },
}

/// The model asks for a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// Its id, unique in the conversation.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, as the model wrote them: JSON, if it kept to the rules.
    pub arguments: String,
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

/// What a model answered, whole: the output of a step that was given a whole request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatReply {
    /// The text.
    pub text: String,
    /// What the model thought aloud, when the provider tells.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    /// The provider's mark of the thought.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signature: String,
    /// Tools that it asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Why it stopped: `stop`, `length`, `tool_calls`.
    pub finish: String,
    /// The provider's name.
    pub provider: String,
    /// The model, by its own word.
    pub model: String,
    /// Quantities in disjoint classes.
    pub usage: Usage,
    /// False when the quantities are our estimate.
    pub confirmed: bool,
    /// The provider's usage block, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_usage: Option<Value>,
}
