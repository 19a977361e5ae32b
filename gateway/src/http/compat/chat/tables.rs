//! Declared fields of chat completions.

use convergio_domain::chat::ChatField;

use super::super::conversation::{MESSAGES_LIMIT, PARTS_LIMIT, TOOLS_LIMIT};
use super::super::field_table::FieldHandling::{Chat, ChatOption, Dialect, Kept, Native, Refused};
use super::super::field_table::{ObjectSpec, ValueKind, field, is_nothing, never};

/// Maximum models of a fallback list.
pub(in super::super) const MODELS_LIMIT: usize = 8;

pub(super) const BODY: ObjectSpec = ObjectSpec {
    place: "",
    fields: &[
        field("model", ValueKind::Text, Kept),
        field("models", ValueKind::List(MODELS_LIMIT), Dialect),
        field("messages", ValueKind::List(MESSAGES_LIMIT), Kept),
        field("stream", ValueKind::Flag, Dialect),
        field("stream_options", ValueKind::Object, Dialect),
        field("n", ValueKind::Any, Refused(|value| *value == 1)),
        field("logprobs", ValueKind::Any, Refused(is_nothing)),
        field("top_logprobs", ValueKind::Any, Refused(is_nothing)),
        field("audio", ValueKind::Any, Refused(never)),
        field("functions", ValueKind::Any, Refused(is_nothing)),
        field("function_call", ValueKind::Any, Refused(|value| *value == "none")),
        field("max_tokens", ValueKind::Tokens, Kept),
        field("max_completion_tokens", ValueKind::Tokens, Kept),
        field("temperature", ValueKind::Number(0.0, 2.0), Chat(ChatField::Temperature)),
        field("top_p", ValueKind::Number(0.0, 1.0), Chat(ChatField::TopP)),
        field("top_k", ValueKind::Count, ChatOption(ChatField::TopK)),
        field("min_p", ValueKind::Number(0.0, 1.0), ChatOption(ChatField::MinP)),
        field("stop", ValueKind::TextOrList(16), Chat(ChatField::Stop)),
        field("seed", ValueKind::Whole, Chat(ChatField::Seed)),
        field("reasoning_effort", ValueKind::Text, Chat(ChatField::Effort)),
        field("reasoning", ValueKind::Object, Chat(ChatField::Effort)),
        field("response_format", ValueKind::Object, Chat(ChatField::Schema)),
        field("tools", ValueKind::List(TOOLS_LIMIT), Kept),
        field("tool_choice", ValueKind::TextOrObject, Chat(ChatField::ToolChoice)),
        field("parallel_tool_calls", ValueKind::Flag, ChatOption(ChatField::ParallelToolCalls)),
        field(
            "frequency_penalty",
            ValueKind::Number(-2.0, 2.0),
            ChatOption(ChatField::FrequencyPenalty),
        ),
        field(
            "presence_penalty",
            ValueKind::Number(-2.0, 2.0),
            ChatOption(ChatField::PresencePenalty),
        ),
        field("logit_bias", ValueKind::Object, ChatOption(ChatField::LogitBias)),
        field("service_tier", ValueKind::Text, ChatOption(ChatField::ServiceTier)),
        field("store", ValueKind::Flag, ChatOption(ChatField::Store)),
        field("metadata", ValueKind::Object, ChatOption(ChatField::Metadata)),
        field("user", ValueKind::Text, ChatOption(ChatField::User)),
        field("safety_identifier", ValueKind::Text, ChatOption(ChatField::SafetyIdentifier)),
        field("prompt_cache_key", ValueKind::Text, ChatOption(ChatField::PromptCacheKey)),
        field(
            "prompt_cache_retention",
            ValueKind::Text,
            ChatOption(ChatField::PromptCacheRetention),
        ),
        field("prompt_cache_options", ValueKind::Object, Native),
        field("verbosity", ValueKind::Text, ChatOption(ChatField::Verbosity)),
        field("web_search_options", ValueKind::Object, ChatOption(ChatField::WebSearchOptions)),
        field("modalities", ValueKind::List(8), ChatOption(ChatField::Modalities)),
        field("moderation", ValueKind::Any, ChatOption(ChatField::Moderation)),
        field("prediction", ValueKind::Object, ChatOption(ChatField::Prediction)),
        field("cache_control", ValueKind::Object, ChatOption(ChatField::CacheControl)),
        field("thinking", ValueKind::Object, ChatOption(ChatField::Thinking)),
    ],
};

pub(super) const STREAM_OPTIONS: ObjectSpec = ObjectSpec {
    place: "stream_options",
    fields: &[
        field("include_usage", ValueKind::Flag, Dialect),
        field("include_obfuscation", ValueKind::Flag, Dialect),
    ],
};

pub(super) const REASONING: ObjectSpec = ObjectSpec {
    place: "reasoning",
    fields: &[field("effort", ValueKind::Text, Chat(ChatField::Effort))],
};

pub(super) const RESPONSE_FORMAT: ObjectSpec = ObjectSpec {
    place: "response_format",
    fields: &[
        field("type", ValueKind::Words(&["text", "json_object", "json_schema"]), Kept),
        field("json_schema", ValueKind::Object, Chat(ChatField::Schema)),
    ],
};

pub(in super::super) const JSON_SCHEMA: ObjectSpec = ObjectSpec {
    place: "response_format.json_schema",
    fields: &[
        field("name", ValueKind::Text, Chat(ChatField::Schema)),
        field("description", ValueKind::Text, Chat(ChatField::Schema)),
        field("schema", ValueKind::Object, Chat(ChatField::Schema)),
        field("strict", ValueKind::Flag, Chat(ChatField::Schema)),
    ],
};

pub(super) const TOOL: ObjectSpec = ObjectSpec {
    place: "tools[]",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("function", ValueKind::Object, Kept),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const FUNCTION: ObjectSpec = ObjectSpec {
    place: "tools[].function",
    fields: &[
        field("name", ValueKind::Text, Kept),
        field("description", ValueKind::Text, Kept),
        field("parameters", ValueKind::Object, Kept),
        field("strict", ValueKind::Flag, Chat(ChatField::ToolStrict)),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const TOOL_CHOICE: ObjectSpec = ObjectSpec {
    place: "tool_choice",
    fields: &[
        field("type", ValueKind::Words(&["function", "custom"]), Kept),
        field("function", ValueKind::Object, Kept),
        field("custom", ValueKind::Object, Kept),
    ],
};

pub(super) const TOOL_CHOICE_NAME: ObjectSpec =
    ObjectSpec { place: "tool_choice.function", fields: &[field("name", ValueKind::Text, Kept)] };

pub(super) const MESSAGE: ObjectSpec = ObjectSpec {
    place: "messages[] (system, developer, user)",
    fields: &[
        field("role", ValueKind::Text, Kept),
        field("content", ValueKind::TextOrList(PARTS_LIMIT), Kept),
        field("name", ValueKind::Text, Chat(ChatField::MessageName)),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const ASSISTANT_MESSAGE: ObjectSpec = ObjectSpec {
    place: "messages[] (assistant)",
    fields: &[
        field("role", ValueKind::Text, Kept),
        field("content", ValueKind::TextOrList(PARTS_LIMIT), Kept),
        field("name", ValueKind::Text, Chat(ChatField::MessageName)),
        field("refusal", ValueKind::Text, Kept),
        field("tool_calls", ValueKind::List(TOOLS_LIMIT), Kept),
        field("reasoning_content", ValueKind::Text, Chat(ChatField::ForeignThinking)),
        field("reasoning", ValueKind::Text, Chat(ChatField::ForeignThinking)),
        field("reasoning_details", ValueKind::List(PARTS_LIMIT), Chat(ChatField::ForeignThinking)),
        field("annotations", ValueKind::List(PARTS_LIMIT), Native),
        field("extra_content", ValueKind::Object, Native),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
        field("audio", ValueKind::Any, Refused(never)),
        field("function_call", ValueKind::Any, Refused(never)),
    ],
};

pub(super) const TOOL_MESSAGE: ObjectSpec = ObjectSpec {
    place: "messages[] (tool)",
    fields: &[
        field("role", ValueKind::Text, Kept),
        field("content", ValueKind::TextOrList(PARTS_LIMIT), Kept),
        field("tool_call_id", ValueKind::Text, Kept),
        field("name", ValueKind::Text, Kept),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const TOOL_CALL: ObjectSpec = ObjectSpec {
    place: "messages[].tool_calls[]",
    fields: &[
        field("id", ValueKind::Text, Kept),
        field("type", ValueKind::Text, Kept),
        field("index", ValueKind::Count, Dialect),
        field("function", ValueKind::Object, Kept),
        field("extra_content", ValueKind::Object, Native),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const CALLED_FUNCTION: ObjectSpec = ObjectSpec {
    place: "messages[].tool_calls[].function",
    fields: &[field("name", ValueKind::Text, Kept), field("arguments", ValueKind::Text, Kept)],
};

pub(super) const TEXT: ObjectSpec = ObjectSpec {
    place: "messages[].content[] (text)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("text", ValueKind::Text, Kept),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
        field("prompt_cache_breakpoint", ValueKind::Object, Native),
    ],
};

pub(super) const IMAGE: ObjectSpec = ObjectSpec {
    place: "messages[].content[] (image_url)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("image_url", ValueKind::TextOrObject, Kept),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
        field("prompt_cache_breakpoint", ValueKind::Object, Native),
    ],
};

pub(super) const IMAGE_URL: ObjectSpec = ObjectSpec {
    place: "messages[].content[].image_url",
    fields: &[
        field("url", ValueKind::Text, Kept),
        field("detail", ValueKind::Text, Chat(ChatField::ImageDetail)),
    ],
};

pub(super) const AUDIO: ObjectSpec = ObjectSpec {
    place: "messages[].content[] (input_audio)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("input_audio", ValueKind::Object, Chat(ChatField::AudioInput)),
        field("prompt_cache_breakpoint", ValueKind::Object, Native),
    ],
};

pub(super) const INPUT_AUDIO: ObjectSpec = ObjectSpec {
    place: "messages[].content[].input_audio",
    fields: &[
        field("data", ValueKind::Text, Chat(ChatField::AudioInput)),
        field("format", ValueKind::Text, Chat(ChatField::AudioInput)),
    ],
};

pub(super) const FILE: ObjectSpec = ObjectSpec {
    place: "messages[].content[] (file)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("file", ValueKind::Object, Chat(ChatField::Documents)),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
        field("prompt_cache_breakpoint", ValueKind::Object, Native),
    ],
};

pub(super) const INPUT_FILE: ObjectSpec = ObjectSpec {
    place: "messages[].content[].file",
    fields: &[
        field("file_data", ValueKind::Text, Chat(ChatField::Documents)),
        field("filename", ValueKind::Text, Chat(ChatField::Documents)),
        field("file_id", ValueKind::Any, Refused(never)),
    ],
};

pub(super) const REFUSAL: ObjectSpec = ObjectSpec {
    place: "messages[].content[] (refusal)",
    fields: &[field("type", ValueKind::Text, Kept), field("refusal", ValueKind::Text, Kept)],
};

/// All tables, for the tests.
#[cfg(test)]
pub(in super::super) const ALL: &[&ObjectSpec] = &[
    &BODY,
    &STREAM_OPTIONS,
    &REASONING,
    &RESPONSE_FORMAT,
    &JSON_SCHEMA,
    &TOOL,
    &FUNCTION,
    &TOOL_CHOICE,
    &TOOL_CHOICE_NAME,
    &MESSAGE,
    &ASSISTANT_MESSAGE,
    &TOOL_MESSAGE,
    &TOOL_CALL,
    &CALLED_FUNCTION,
    &TEXT,
    &IMAGE,
    &IMAGE_URL,
    &AUDIO,
    &INPUT_AUDIO,
    &FILE,
    &INPUT_FILE,
    &REFUSAL,
];
