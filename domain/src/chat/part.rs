//! What a turn of a conversation is made of: parts in their order. What only one interface can say
//! stays with the part as that interface wrote it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An interface of model providers: the words and the form of its requests and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Interface {
    /// OpenAI's chat completions.
    #[serde(rename = "openai_chat")]
    OpenAiChat,
    /// OpenAI's responses.
    #[serde(rename = "openai_responses")]
    OpenAiResponses,
    /// Anthropic's messages.
    #[serde(rename = "anthropic")]
    Anthropic,
    /// Google's `generateContent`.
    #[serde(rename = "gemini")]
    Gemini,
    /// Google's interactions.
    #[serde(rename = "gemini_interactions")]
    GeminiInteractions,
    /// Ollama's own.
    #[serde(rename = "ollama")]
    Ollama,
}

impl Interface {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::OpenAiChat,
        Self::OpenAiResponses,
        Self::Anthropic,
        Self::Gemini,
        Self::GeminiInteractions,
        Self::Ollama,
    ];

    /// The name, as the file of providers has it.
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

/// Fields of a part, a turn or a tool that only one interface has. Written to that interface again,
/// they replace what the platform would write in their place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NativeFields {
    /// Whose fields they are.
    pub interface: Interface,
    /// The fields, by their names there.
    pub fields: Map<String, Value>,
}

impl NativeFields {
    /// The fields, unless there are none.
    pub fn of(interface: Interface, fields: Map<String, Value>) -> Option<Self> {
        (!fields.is_empty()).then_some(Self { interface, fields })
    }

    /// Puts the fields of an interface into what is written for it.
    pub fn write(native: Option<&Self>, interface: Interface, block: &mut Value) {
        let native = native.filter(|native| native.interface == interface);
        if let (Some(native), Value::Object(block)) = (native, block) {
            block.extend(native.fields.clone());
        }
    }
}

/// A part, a tool or an item that means something to one interface alone, as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NativePart {
    /// Who understands it.
    pub interface: Interface,
    /// The block.
    pub block: Value,
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The person, or the program that speaks for them; tools' results too.
    User,
    /// The model.
    Assistant,
    /// The operator of the conversation, where it stands in the conversation.
    System,
    /// The same, by OpenAI's younger word.
    Developer,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said, in order.
    pub parts: Vec<Part>,
    /// The name of who said it, among several of a role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What only the interface that it came by can say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

impl Message {
    /// A turn of these parts.
    pub fn new(role: Role, parts: Vec<Part>) -> Self {
        Self { role, parts, name: None, native: None }
    }

    /// A turn of text alone.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self::new(role, vec![Part::text(text)])
    }
}

/// A part of a turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text.
    Text(TextPart),
    /// An image as bytes.
    Image(ImagePart),
    /// An image that the provider fetches itself.
    ImageUrl(ImageUrlPart),
    /// A document: a PDF, a text.
    File(FilePart),
    /// Recorded sound.
    Audio(AudioPart),
    /// The model asks for a tool.
    ToolCall(ToolCall),
    /// What a tool answered.
    ToolResult(ToolResultPart),
    /// What a reasoning model thought.
    Thinking(ThinkingPart),
    /// The model says why it does not answer.
    Refusal(RefusalPart),
    /// What one interface alone understands.
    Native(NativePart),
}

impl Part {
    /// Text, with nothing besides.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(TextPart { text: text.into(), ..TextPart::default() })
    }

    /// The mark up to which the provider is asked to keep what it has read.
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

/// Text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextPart {
    /// The text.
    pub text: String,
    /// Anthropic's `cache_control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// What only the interface that it came by can say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// An image as bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePart {
    /// Its media type, as `image/png`.
    pub media_type: String,
    /// The bytes in base64.
    pub data: String,
    /// How closely it is looked at, in OpenAI's words: `low`, `high`, `auto`, `original`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Anthropic's `cache_control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// What only the interface that it came by can say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// An image that the provider fetches itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageUrlPart {
    /// Where it is.
    pub url: String,
    /// How closely it is looked at, in OpenAI's words: `low`, `high`, `auto`, `original`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Anthropic's `cache_control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// What only the interface that it came by can say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// A document: its bytes, its text, or where the provider finds it. One of the three is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePart {
    /// Its media type, as `application/pdf`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The bytes in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The text of a document of plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Where the provider fetches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Anthropic's `cache_control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// What only the interface that it came by can say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// Recorded sound.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioPart {
    /// The format, as OpenAI names it: `wav`, `mp3`.
    pub format: String,
    /// The bytes in base64.
    pub data: String,
    /// What only the interface that it came by can say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// The model asks for a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// Its id, unique in the conversation.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, as the model wrote them: a JSON object, if it kept to the rules. A model that
    /// wrote none has written `{}`.
    pub arguments: String,
    /// Anthropic's `cache_control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// What only the interface that it came by can say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// What a tool answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolResultPart {
    /// The call's id.
    pub id: String,
    /// The tool's name.
    #[serde(default)]
    pub name: String,
    /// The answer, when it is one text.
    #[serde(default)]
    pub text: String,
    /// The answer, when it is more than one text: then [`ToolResultPart::text`] is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// Whether the tool failed.
    #[serde(default)]
    pub is_error: bool,
    /// Anthropic's `cache_control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
    /// What only the interface that it came by can say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

impl ToolResultPart {
    /// The texts of the answer, one after the other; pictures are none.
    pub fn all_text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(TextPart { text, .. }) => Some(text.as_str()),
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

/// What a reasoning model thought.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThinkingPart {
    /// The thought, or the provider's summary of it; empty when it is told to nobody.
    pub text: String,
    /// The provider's mark, which it must get back unchanged.
    #[serde(default)]
    pub signature: String,
    /// What only the interface that it came by can say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}

/// The model says why it does not answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalPart {
    /// Why.
    pub text: String,
    /// What only the interface that it came by can say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
}
