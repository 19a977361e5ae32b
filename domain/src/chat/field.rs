//! What may be asked of a model besides the conversation itself, field by field, and what becomes
//! of each field at each interface. Nothing is ignored: a field is kept, left out with a word to
//! the caller, or refused.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::part::Interface;
use super::part::Interface::{
    Anthropic, Gemini, GeminiInteractions, Ollama, OpenAiChat, OpenAiResponses,
};

/// What becomes of a field at an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldSupport {
    /// It stands in the provider's request.
    Kept,
    /// The provider does without, and the caller is told.
    LeftOut,
    /// The call fails before anything is sent, and the field is named.
    Refused,
}

macro_rules! chat_fields {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $kept:expr, $else:ident;)+) => {
        /// A field of a request that providers treat differently.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum ChatField {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl ChatField {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name, as errors, events and headers have it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What becomes of the field at an interface.
            pub fn support(self, interface: Interface) -> FieldSupport {
                let kept: &[Interface] = match self {
                    $(Self::$variant => &$kept,)+
                };
                if kept.contains(&interface) { FieldSupport::Kept } else { self.support_without() }
            }

            /// What becomes of the field where it is not taken.
            pub fn support_without(self) -> FieldSupport {
                match self {
                    $(Self::$variant => FieldSupport::$else,)+
                }
            }
        }
    };
}

/// Fields that only one interface has, as the doors know them: others are told of by no name, which
/// might be anybody's words.
pub const NATIVE_FIELDS: [&str; 38] = [
    "access_programs",
    "allowed_callers",
    "annotations",
    "async",
    "caller",
    "citations",
    "compaction",
    "content",
    "context",
    "context_management",
    "defer_loading",
    "detail",
    "eager_input_streaming",
    "encrypted_content",
    "end_turn",
    "extra_content",
    "id",
    "image",
    "input_examples",
    "logprobs",
    "mode",
    "name",
    "namespace",
    "output_config",
    "output_format",
    "output_schema",
    "phase",
    "prompt_cache_breakpoint",
    "prompt_cache_options",
    "reasoning",
    "reasoning_details",
    "safeguards",
    "status",
    "summary",
    "task_budget",
    "title",
    "tool_choice",
    "type",
];

const OPENAI: [Interface; 2] = [OpenAiChat, OpenAiResponses];

chat_fields! {
    /// Most tokens of the answer.
    MaxTokens = "max_tokens", Interface::ALL, LeftOut;
    /// Sampling temperature.
    Temperature = "temperature", Interface::ALL, LeftOut;
    /// Nucleus sampling.
    TopP = "top_p", Interface::ALL, LeftOut;
    /// Sampling among the likeliest tokens.
    TopK = "top_k", [OpenAiChat, Anthropic, Gemini, Ollama], Refused;
    /// Sampling above a part of the likeliest token's probability.
    MinP = "min_p", [OpenAiChat, Ollama], Refused;
    /// Texts at which the answer ends.
    Stop = "stop", [OpenAiChat, Anthropic, Gemini, GeminiInteractions, Ollama], Refused;
    /// Seed of the sampling.
    Seed = "seed", [OpenAiChat, Gemini, GeminiInteractions, Ollama], LeftOut;
    /// How much a reasoning model may think.
    Effort = "effort", Interface::ALL, LeftOut;
    /// Whether the model may, must or must not ask for a tool.
    ToolChoice = "tool_choice",
        [OpenAiChat, OpenAiResponses, Anthropic, Gemini, GeminiInteractions], Refused;
    /// Whether it may ask for several at once.
    ParallelToolCalls = "parallel_tool_calls",
        [OpenAiChat, OpenAiResponses, Anthropic], Refused;
    /// Penalty of tokens by how often they were said.
    FrequencyPenalty = "frequency_penalty", [OpenAiChat, Gemini, Ollama], Refused;
    /// Penalty of tokens that were said.
    PresencePenalty = "presence_penalty", [OpenAiChat, Gemini, Ollama], Refused;
    /// Biases of single tokens.
    LogitBias = "logit_bias", [OpenAiChat], Refused;
    /// The provider's tier of service, which has its own price.
    ServiceTier = "service_tier", [OpenAiChat, OpenAiResponses, Anthropic], Refused;
    /// Whether the provider may keep the call.
    Store = "store", OPENAI, LeftOut;
    /// The caller's own marks of the call.
    Metadata = "metadata", OPENAI, LeftOut;
    /// The person behind the call.
    User = "user", [OpenAiChat, OpenAiResponses, Anthropic], LeftOut;
    /// The same, as a hash.
    SafetyIdentifier = "safety_identifier", OPENAI, LeftOut;
    /// What calls of one prefix have in common.
    PromptCacheKey = "prompt_cache_key", OPENAI, LeftOut;
    /// How long a prefix is kept.
    PromptCacheRetention = "prompt_cache_retention", OPENAI, LeftOut;
    /// How long-winded the answer is.
    Verbosity = "verbosity", OPENAI, Refused;
    /// A search of the provider's own before the answer.
    WebSearchOptions = "web_search_options", [OpenAiChat], Refused;
    /// Whether text or sound is answered.
    Modalities = "modalities", [OpenAiChat], Refused;
    /// The provider's own check of the answer.
    Moderation = "moderation", OPENAI, Refused;
    /// A text that the answer resembles, which makes it faster.
    Prediction = "prediction", [OpenAiChat], LeftOut;
    /// A JSON object as the answer, without a schema.
    JsonObject = "json_object",
        [OpenAiChat, OpenAiResponses, Gemini, GeminiInteractions, Ollama], Refused;
    /// A JSON Schema of the answer.
    Schema = "schema", Interface::ALL, Refused;
    /// The name of such a schema.
    SchemaName = "schema.name", OPENAI, LeftOut;
    /// What it is for.
    SchemaDescription = "schema.description", OPENAI, LeftOut;
    /// Whether the answer must keep to it.
    SchemaStrict = "schema.strict", OPENAI, LeftOut;
    /// Whether a tool's arguments must keep to its schema.
    ToolStrict = "tools.strict", [OpenAiChat, OpenAiResponses, Anthropic], LeftOut;
    /// How closely a picture is looked at.
    ImageDetail = "image.detail", OPENAI, LeftOut;
    /// Whether a tool failed.
    ResultError = "tool_result.is_error", [Anthropic, Gemini, GeminiInteractions], LeftOut;
    /// Who among several spoke.
    MessageName = "messages.name", [OpenAiChat], LeftOut;
    /// Marks up to which the provider keeps what it has read.
    CacheControl = "cache_control", [Anthropic], LeftOut;
    /// Anthropic's switch of thinking.
    Thinking = "thinking", [Anthropic], LeftOut;
    /// What Anthropic drops out of a long conversation.
    ContextManagement = "context_management", [Anthropic], LeftOut;
    /// Where Anthropic computes.
    InferenceGeo = "inference_geo", [Anthropic], Refused;
    /// How fast Anthropic computes.
    Speed = "speed", [Anthropic], LeftOut;
    /// Features of Anthropic that are not settled yet.
    Betas = "anthropic-beta", [Anthropic], LeftOut;
    /// How OpenAI sums up what was thought.
    ReasoningSummary = "reasoning.summary", [OpenAiResponses], LeftOut;
    /// What OpenAI's responses tell in addition.
    Include = "include", [OpenAiResponses], LeftOut;
    /// What OpenAI's responses do with a conversation that is too long.
    Truncation = "truncation", [OpenAiResponses], Refused;
    /// Calls of hosted tools at most.
    MaxToolCalls = "max_tool_calls", [OpenAiResponses], LeftOut;
    /// Tools that the provider runs itself.
    HostedTools = "hosted_tools", [OpenAiResponses, Anthropic], LeftOut;
    /// Instructions within the conversation.
    SystemInPlace = "messages.system", [OpenAiChat, OpenAiResponses, Anthropic, Ollama], LeftOut;
    /// What a model of another maker thought.
    ForeignThinking = "thinking_of_another", [], LeftOut;
    /// Documents.
    Documents = "documents",
        [OpenAiChat, OpenAiResponses, Anthropic, Gemini, GeminiInteractions], Refused;
    /// Recorded sound.
    AudioInput = "input_audio", [OpenAiChat, Gemini], Refused;
    /// Fields of parts, turns and tools that only another interface has.
    ForeignFields = "fields_of_another", [], LeftOut;
    /// A part that only another interface understands.
    ForeignPart = "parts_of_another", [], Refused;
}

impl ChatField {
    /// Whether a value says what would be without it, so that no provider needs to know the field.
    pub fn is_neutral(self, value: &Value) -> bool {
        if value.is_null() {
            return true;
        }
        match self {
            Self::FrequencyPenalty | Self::PresencePenalty => value.as_f64() == Some(0.0),
            Self::LogitBias => value.as_object().is_some_and(serde_json::Map::is_empty),
            Self::ParallelToolCalls => *value == true,
            Self::Verbosity => *value == "medium",
            Self::ServiceTier => ["auto", "default"].iter().any(|tier| *value == **tier),
            Self::Modalities => value.as_array().is_some_and(|list| {
                list.len() == 1 && list.iter().all(|modality| *modality == "text")
            }),
            Self::Truncation => *value == "disabled",
            Self::Store => *value == false,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ChatField, FieldSupport, Interface};

    #[test]
    fn a_field_is_written_by_its_name() {
        for field in ChatField::ALL {
            assert_eq!(json!(field), json!(field.name()));
        }
    }

    #[test]
    fn what_changes_an_answer_is_never_left_out() {
        for field in [ChatField::TopK, ChatField::LogitBias, ChatField::Schema, ChatField::Stop] {
            let left_out =
                |interface: &Interface| field.support(*interface) == FieldSupport::LeftOut;
            assert!(!Interface::ALL.iter().any(left_out), "{field:?}");
        }
    }

    #[test]
    fn values_that_say_nothing_are_neutral() {
        for (field, value, is_neutral) in [
            (ChatField::FrequencyPenalty, json!(0), true),
            (ChatField::FrequencyPenalty, json!(0.1), false),
            (ChatField::ParallelToolCalls, json!(true), true),
            (ChatField::ParallelToolCalls, json!(false), false),
            (ChatField::Modalities, json!(["text"]), true),
            (ChatField::Modalities, json!(["text", "audio"]), false),
            (ChatField::ServiceTier, json!("flex"), false),
        ] {
            assert_eq!(field.is_neutral(&value), is_neutral, "{field:?} {value}");
        }
    }
}
