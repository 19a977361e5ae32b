//! The request fields besides the conversation itself, and how each provider interface treats them.
//! Nothing is dropped silently: a field is sent, left out and reported to the caller, or refused.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::part::ChatInterface;
use super::part::ChatInterface::{
    Anthropic, Gemini, GeminiInteractions, Ollama, OpenAiChat, OpenAiResponses,
};

/// Treatment of a field by a provider interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldSupport {
    /// The provider's request contains the field.
    Kept,
    /// The request is sent without the field, and the caller is told.
    LeftOut,
    /// The call fails before anything is sent, with an error that names the field.
    Refused,
}

// One table gives the enum, the names and the support, so that no field can lack one of them.
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
            /// Every field in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Name of the field in errors, events and headers.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Returns the treatment of the field by an interface.
            pub fn support_at(self, interface: ChatInterface) -> FieldSupport {
                let kept: &[ChatInterface] = match self {
                    $(Self::$variant => &$kept,)+
                };
                if kept.contains(&interface) {
                    FieldSupport::Kept
                } else {
                    self.support_elsewhere()
                }
            }

            /// Returns the treatment of the field by interfaces that do not have it.
            pub fn support_elsewhere(self) -> FieldSupport {
                match self {
                    $(Self::$variant => FieldSupport::$else,)+
                }
            }
        }
    };
}

/// Names of native fields that reports to callers may contain. Any other field is reported without
/// its name, which could be private text.
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

const OPENAI: [ChatInterface; 2] = [OpenAiChat, OpenAiResponses];

chat_fields! {
    /// Most tokens of the answer.
    MaxTokens = "max_tokens", ChatInterface::ALL, LeftOut;
    /// Temperature of the sampling.
    Temperature = "temperature", ChatInterface::ALL, LeftOut;
    /// Probability mass of nucleus sampling.
    TopP = "top_p", ChatInterface::ALL, LeftOut;
    /// Number of likeliest tokens that are sampled from.
    TopK = "top_k", [OpenAiChat, Anthropic, Gemini, Ollama], Refused;
    /// Least probability of a sampled token, relative to the likeliest one.
    MinP = "min_p", [OpenAiChat, Ollama], Refused;
    /// Sequences at which the answer ends.
    Stop = "stop", [OpenAiChat, Anthropic, Gemini, GeminiInteractions, Ollama], Refused;
    /// Seed of the sampling.
    Seed = "seed", [OpenAiChat, Gemini, GeminiInteractions, Ollama], LeftOut;
    /// Reasoning effort of the model.
    Effort = "effort", ChatInterface::ALL, LeftOut;
    /// Requirement or prohibition of tool calls.
    ToolChoice = "tool_choice",
        [OpenAiChat, OpenAiResponses, Anthropic, Gemini, GeminiInteractions], Refused;
    /// Permission of several tool calls in one answer.
    ParallelToolCalls = "parallel_tool_calls",
        [OpenAiChat, OpenAiResponses, Anthropic], Refused;
    /// Penalty of tokens by how often they occurred.
    FrequencyPenalty = "frequency_penalty", [OpenAiChat, Gemini, Ollama], Refused;
    /// Penalty of tokens that occurred at all.
    PresencePenalty = "presence_penalty", [OpenAiChat, Gemini, Ollama], Refused;
    /// Biases of single tokens.
    LogitBias = "logit_bias", [OpenAiChat], Refused;
    /// Service tier of the provider, which has its own price.
    ServiceTier = "service_tier", [OpenAiChat, OpenAiResponses, Anthropic], Refused;
    /// Permission for the provider to store the call.
    Store = "store", OPENAI, LeftOut;
    /// Key-value pairs that the caller attaches to the call.
    Metadata = "metadata", OPENAI, LeftOut;
    /// Identifier of the end user.
    User = "user", [OpenAiChat, OpenAiResponses, Anthropic], LeftOut;
    /// Identifier of the end user, hashed.
    SafetyIdentifier = "safety_identifier", OPENAI, LeftOut;
    /// Key that groups calls with a common prefix in the provider's cache.
    PromptCacheKey = "prompt_cache_key", OPENAI, LeftOut;
    /// Time that the provider caches a prefix.
    PromptCacheRetention = "prompt_cache_retention", OPENAI, LeftOut;
    /// Length and detail of the answer.
    Verbosity = "verbosity", OPENAI, Refused;
    /// Web search by the provider before the answer.
    WebSearchOptions = "web_search_options", [OpenAiChat], Refused;
    /// Output types: text, audio.
    Modalities = "modalities", [OpenAiChat], Refused;
    /// Moderation of the answer by the provider.
    Moderation = "moderation", OPENAI, Refused;
    /// Expected answer, which speeds up answers that are close to it.
    Prediction = "prediction", [OpenAiChat], LeftOut;
    /// A JSON object as the answer, without a schema.
    JsonObject = "json_object",
        [OpenAiChat, OpenAiResponses, Gemini, GeminiInteractions, Ollama], Refused;
    /// A JSON Schema of the answer.
    Schema = "schema", ChatInterface::ALL, Refused;
    /// Name of the answer's schema.
    SchemaName = "schema.name", OPENAI, LeftOut;
    /// Purpose of the answer's schema.
    SchemaDescription = "schema.description", OPENAI, LeftOut;
    /// Enforcement of the answer's schema.
    SchemaStrict = "schema.strict", OPENAI, LeftOut;
    /// Enforcement of a tool's argument schema.
    ToolStrict = "tools.strict", [OpenAiChat, OpenAiResponses, Anthropic], LeftOut;
    /// Resolution at which the model sees an image.
    ImageDetail = "image.detail", OPENAI, LeftOut;
    /// Error mark of a tool result.
    ResultError = "tool_result.is_error", [Anthropic, Gemini, GeminiInteractions], LeftOut;
    /// Name of the speaker among several of one role.
    MessageName = "messages.name", [OpenAiChat], LeftOut;
    /// Cache breakpoints within the prompt.
    CacheControl = "cache_control", [Anthropic], LeftOut;
    /// Anthropic's switch of extended thinking.
    Thinking = "thinking", [Anthropic], LeftOut;
    /// Anthropic's rules for shortening a long conversation.
    ContextManagement = "context_management", [Anthropic], LeftOut;
    /// Region of Anthropic's inference.
    InferenceGeo = "inference_geo", [Anthropic], Refused;
    /// Anthropic's choice of a faster inference.
    Speed = "speed", [Anthropic], LeftOut;
    /// Anthropic's beta features.
    Betas = "anthropic-beta", [Anthropic], LeftOut;
    /// Summary of the reasoning in OpenAI's responses.
    ReasoningSummary = "reasoning.summary", [OpenAiResponses], LeftOut;
    /// Additional output of OpenAI's responses.
    Include = "include", [OpenAiResponses], LeftOut;
    /// Treatment of conversations that are too long for OpenAI's responses.
    Truncation = "truncation", [OpenAiResponses], Refused;
    /// Most calls of hosted tools.
    MaxToolCalls = "max_tool_calls", [OpenAiResponses], LeftOut;
    /// Tools that the provider runs itself.
    HostedTools = "hosted_tools", [OpenAiResponses, Anthropic], LeftOut;
    /// System messages within the conversation.
    SystemInPlace = "messages.system", [OpenAiChat, OpenAiResponses, Anthropic, Ollama], LeftOut;
    /// Reasoning by a model of another maker.
    ForeignThinking = "thinking_of_another", [], LeftOut;
    /// Documents within a message.
    Documents = "documents",
        [OpenAiChat, OpenAiResponses, Anthropic, Gemini, GeminiInteractions], Refused;
    /// Sound recordings within a message.
    AudioInput = "input_audio", [OpenAiChat, Gemini], Refused;
    /// Native fields of another interface.
    ForeignFields = "fields_of_another", [], LeftOut;
    /// A part that only another interface understands.
    ForeignPart = "parts_of_another", [], Refused;
}

impl ChatField {
    /// True if a value is the default of every provider, so that the field need not be sent.
    pub fn is_neutral(self, value: &Value) -> bool {
        if value.is_null() {
            return true;
        }
        match self {
            Self::FrequencyPenalty | Self::PresencePenalty => value.as_f64() == Some(0.0),
            Self::LogitBias => value.as_object().is_some_and(serde_json::Map::is_empty),
            Self::ParallelToolCalls => *value == true,
            Self::Verbosity => *value == "medium",
            // Both leave the choice to the provider.
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

    use super::{ChatField, ChatInterface, FieldSupport};

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
                |interface: &ChatInterface| field.support_at(*interface) == FieldSupport::LeftOut;
            assert!(!ChatInterface::ALL.iter().any(left_out), "{field:?}");
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
