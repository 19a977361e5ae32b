//! Messages and their parts. Fields that only one provider interface has stay with the part in the
//! form of that interface.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A provider interface: the fields and the form of its requests and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChatInterface {
    /// OpenAI's chat completions interface.
    #[serde(rename = "openai_chat")]
    OpenAiChat,
    /// OpenAI's responses interface.
    #[serde(rename = "openai_responses")]
    OpenAiResponses,
    /// Anthropic's messages interface.
    #[serde(rename = "anthropic")]
    Anthropic,
    /// Google's `generateContent` interface.
    #[serde(rename = "gemini")]
    Gemini,
    /// Google's interactions interface.
    #[serde(rename = "gemini_interactions")]
    GeminiInteractions,
    /// Ollama's own chat interface.
    #[serde(rename = "ollama")]
    Ollama,
}

impl ChatInterface {
    /// All interfaces in the order of declaration.
    pub const ALL: [Self; 6] = [
        Self::OpenAiChat,
        Self::OpenAiResponses,
        Self::Anthropic,
        Self::Gemini,
        Self::GeminiInteractions,
        Self::Ollama,
    ];

    /// Name in the providers' configuration file.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai_chat",
            Self::OpenAiResponses => "openai_responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::GeminiInteractions => "gemini_interactions",
            Self::Ollama => "ollama",
        }
    }
}

/// Fields of a part, a message or a tool that only one interface has. In a request to that
/// interface they replace what the platform would write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NativeFields {
    /// Interface that defines the fields.
    pub interface: ChatInterface,
    /// The fields by their names in that interface.
    pub fields: Map<String, Value>,
}

impl NativeFields {
    /// Creates native fields; `None` if there are none.
    pub fn from_fields(interface: ChatInterface, fields: Map<String, Value>) -> Option<Self> {
        (!fields.is_empty()).then_some(Self { interface, fields })
    }

    /// Writes the fields into `block` if they belong to this interface.
    pub fn write_into(native: Option<&Self>, interface: ChatInterface, block: &mut Value) {
        let native = native.filter(|native| native.interface == interface);
        if let (Some(native), Value::Object(block)) = (native, block) {
            block.extend(native.fields.clone());
        }
    }
}

/// A part, a tool or an item that only one interface understands, in the form of that interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NativePart {
    /// Interface that understands it.
    pub interface: ChatInterface,
    /// The JSON that the interface defines.
    pub block: Value,
}

/// Speaker of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageRole {
    /// The user, or the program that speaks for them; tool results have this role too.
    User,
    /// The model that answers.
    Assistant,
    /// The operator, at its place within the conversation.
    System,
    /// The operator too, by OpenAI's newer name.
    Developer,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    /// Speaker of the message.
    pub role: MessageRole,
    /// Content in order.
    pub parts: Vec<MessagePart>,
    /// Name of the speaker among several of one role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Fields of the message that only the interface of its origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

impl ChatMessage {
    /// Creates a message of these parts.
    pub fn new(role: MessageRole, parts: Vec<MessagePart>) -> Self {
        Self { role, parts, name: None, native: None }
    }

    /// Creates a message of one text.
    pub fn from_text(role: MessageRole, text: impl Into<String>) -> Self {
        Self::new(role, vec![MessagePart::from_text(text)])
    }
}

/// Part of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MessagePart {
    /// Plain or marked-up text.
    Text(TextPart),
    /// An image as bytes.
    Image(ImagePart),
    /// An image that the provider fetches itself.
    ImageUrl(ImageUrlPart),
    /// A document: a PDF, a text.
    File(FilePart),
    /// A sound recording as bytes.
    Audio(AudioPart),
    /// A tool call by the model.
    ToolCall(ToolCall),
    /// Result of a tool call.
    ToolResult(ToolResultPart),
    /// Reasoning of the model.
    Thinking(ThinkingPart),
    /// Refusal by the model to answer.
    Refusal(RefusalPart),
    /// A part that only one interface understands.
    Native(NativePart),
}

impl MessagePart {
    /// Creates a text part with no further fields.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self::Text(TextPart { text: text.into(), ..TextPart::default() })
    }

    /// Returns the cache breakpoint: the provider is asked to cache the prompt up to this part.
    pub fn cache_control(&self) -> Option<&Value> {
        match self {
            Self::Text(TextPart { cache_control, .. })
            | Self::Image(ImagePart { cache_control, .. })
            | Self::ImageUrl(ImageUrlPart { cache_control, .. })
            | Self::File(FilePart { cache_control, .. })
            | Self::ToolCall(ToolCall { cache_control, .. })
            | Self::ToolResult(ToolResultPart { cache_control, .. }) => cache_control.as_ref(),
            Self::Audio(_) | Self::Thinking(_) | Self::Refusal(_) | Self::Native(_) => None,
        }
    }
}

/// Text of a message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextPart {
    /// The text itself, in UTF-8.
    pub text: String,
    /// Anthropic's `cache_control` of the part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// Fields of the part that only the interface of its origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// An image as bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePart {
    /// Media type, as `image/png`.
    pub media_type: String,
    /// Image bytes in base64.
    pub data: String,
    /// Resolution at which the model sees it, in OpenAI's terms: `low`, `high`, `auto`, `original`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Anthropic's `cache_control` of the part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// Fields of the part that only the interface of its origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// An image that the provider fetches itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageUrlPart {
    /// Address of the image.
    pub url: String,
    /// Resolution at which the model sees it, in OpenAI's terms: `low`, `high`, `auto`, `original`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Anthropic's `cache_control` of the part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// Fields of the part that only the interface of its origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// A document: its bytes, its text, or its address. Exactly one of the three is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePart {
    /// Media type, as `application/pdf`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Document bytes in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Content of a plain text document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Address from which the provider fetches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Name of the file, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Anthropic's `cache_control` of the part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// Fields of the part that only the interface of its origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// A sound recording.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioPart {
    /// Format in OpenAI's terms: `wav`, `mp3`.
    pub format: String,
    /// Recording bytes in base64.
    pub data: String,
    /// Fields of the part that only the interface of its origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// A tool call by the model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// Identifier, unique in the conversation.
    pub id: String,
    /// Name of the called tool.
    pub name: String,
    /// Arguments as the model wrote them: a JSON object, if it kept to the schema; `{}` if it wrote
    /// none.
    pub arguments: String,
    /// Anthropic's `cache_control` of the part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// Fields of the part that only the interface of its origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// Result of a tool call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolResultPart {
    /// Identifier of the tool call.
    pub id: String,
    /// Name of the called tool; empty if the interface does not repeat it.
    #[serde(default)]
    pub name: String,
    /// The result, if it is one text.
    #[serde(default)]
    pub text: String,
    /// The result, if it is more than one text: then [`ToolResultPart::text`] is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<MessagePart>,
    /// True if the tool failed.
    #[serde(default)]
    pub is_error: bool,
    /// Anthropic's `cache_control` of the part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// Fields of the part that only the interface of its origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

impl ToolResultPart {
    /// Returns the texts of the result, joined by line breaks; images are left out.
    pub fn all_text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            MessagePart::Text(TextPart { text, .. }) => Some(text.as_str()),
            _ => None,
        });
        let mut all = self.text.clone();
        for text in texts {
            if !all.is_empty() {
                all.push('\n');
            }
            all.push_str(text);
        }
        all
    }
}

/// Reasoning of the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThinkingPart {
    /// The reasoning, or the provider's summary of it; empty if the provider hides it.
    pub text: String,
    /// Provider's signature of the reasoning, which must be sent back unchanged.
    #[serde(default)]
    pub signature: String,
    /// Fields of the part that only the interface of its origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// Refusal by the model to answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalPart {
    /// Reason that the model gives.
    pub text: String,
    /// Fields of the part that only the interface of its origin has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}
