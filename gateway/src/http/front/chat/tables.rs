//! Declared fields of chat completions.

use convergio_domain::chat::ChatField;

use super::super::conversation::{MESSAGES_LIMIT, PARTS_LIMIT, TOOLS_LIMIT};
use super::super::known::Fate::{Chat, Door, Kept, Native, Option, Refused};
use super::super::known::{Kind, Object, field, is_nothing, never};

/// Maximum models of a fallback list.
pub(in super::super) const MODELS_LIMIT: usize = 8;

pub(super) const BODY: Object = Object {
    place: "",
    fields: &[
        field("model", Kind::Text, Kept),
        field("models", Kind::List(MODELS_LIMIT), Door),
        field("messages", Kind::List(MESSAGES_LIMIT), Kept),
        field("stream", Kind::Flag, Door),
        field("stream_options", Kind::Object, Door),
        field("n", Kind::Any, Refused(|value| *value == 1)),
        field("logprobs", Kind::Any, Refused(is_nothing)),
        field("top_logprobs", Kind::Any, Refused(is_nothing)),
        field("audio", Kind::Any, Refused(never)),
        field("functions", Kind::Any, Refused(is_nothing)),
        field("function_call", Kind::Any, Refused(|value| *value == "none")),
        field("max_tokens", Kind::Tokens, Kept),
        field("max_completion_tokens", Kind::Tokens, Kept),
        field("temperature", Kind::Number(0.0, 2.0), Chat(ChatField::Temperature)),
        field("top_p", Kind::Number(0.0, 1.0), Chat(ChatField::TopP)),
        field("top_k", Kind::Count, Option(ChatField::TopK)),
        field("min_p", Kind::Number(0.0, 1.0), Option(ChatField::MinP)),
        field("stop", Kind::TextOrList(16), Chat(ChatField::Stop)),
        field("seed", Kind::Whole, Chat(ChatField::Seed)),
        field("reasoning_effort", Kind::Text, Chat(ChatField::Effort)),
        field("reasoning", Kind::Object, Chat(ChatField::Effort)),
        field("response_format", Kind::Object, Chat(ChatField::Schema)),
        field("tools", Kind::List(TOOLS_LIMIT), Kept),
        field("tool_choice", Kind::TextOrObject, Chat(ChatField::ToolChoice)),
        field("parallel_tool_calls", Kind::Flag, Option(ChatField::ParallelToolCalls)),
        field("frequency_penalty", Kind::Number(-2.0, 2.0), Option(ChatField::FrequencyPenalty)),
        field("presence_penalty", Kind::Number(-2.0, 2.0), Option(ChatField::PresencePenalty)),
        field("logit_bias", Kind::Object, Option(ChatField::LogitBias)),
        field("service_tier", Kind::Text, Option(ChatField::ServiceTier)),
        field("store", Kind::Flag, Option(ChatField::Store)),
        field("metadata", Kind::Object, Option(ChatField::Metadata)),
        field("user", Kind::Text, Option(ChatField::User)),
        field("safety_identifier", Kind::Text, Option(ChatField::SafetyIdentifier)),
        field("prompt_cache_key", Kind::Text, Option(ChatField::PromptCacheKey)),
        field("prompt_cache_retention", Kind::Text, Option(ChatField::PromptCacheRetention)),
        field("prompt_cache_options", Kind::Object, Native),
        field("verbosity", Kind::Text, Option(ChatField::Verbosity)),
        field("web_search_options", Kind::Object, Option(ChatField::WebSearchOptions)),
        field("modalities", Kind::List(8), Option(ChatField::Modalities)),
        field("moderation", Kind::Any, Option(ChatField::Moderation)),
        field("prediction", Kind::Object, Option(ChatField::Prediction)),
        field("cache_control", Kind::Object, Option(ChatField::CacheControl)),
        field("thinking", Kind::Object, Option(ChatField::Thinking)),
    ],
};

pub(super) const STREAM_OPTIONS: Object = Object {
    place: "stream_options",
    fields: &[
        field("include_usage", Kind::Flag, Door),
        field("include_obfuscation", Kind::Flag, Door),
    ],
};

pub(super) const REASONING: Object =
    Object { place: "reasoning", fields: &[field("effort", Kind::Text, Chat(ChatField::Effort))] };

pub(super) const RESPONSE_FORMAT: Object = Object {
    place: "response_format",
    fields: &[
        field("type", Kind::Words(&["text", "json_object", "json_schema"]), Kept),
        field("json_schema", Kind::Object, Chat(ChatField::Schema)),
    ],
};

pub(in super::super) const JSON_SCHEMA: Object = Object {
    place: "response_format.json_schema",
    fields: &[
        field("name", Kind::Text, Chat(ChatField::Schema)),
        field("description", Kind::Text, Chat(ChatField::Schema)),
        field("schema", Kind::Object, Chat(ChatField::Schema)),
        field("strict", Kind::Flag, Chat(ChatField::Schema)),
    ],
};

pub(super) const TOOL: Object = Object {
    place: "tools[]",
    fields: &[
        field("type", Kind::Text, Kept),
        field("function", Kind::Object, Kept),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const FUNCTION: Object = Object {
    place: "tools[].function",
    fields: &[
        field("name", Kind::Text, Kept),
        field("description", Kind::Text, Kept),
        field("parameters", Kind::Object, Kept),
        field("strict", Kind::Flag, Chat(ChatField::ToolStrict)),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const CHOICE: Object = Object {
    place: "tool_choice",
    fields: &[
        field("type", Kind::Words(&["function", "custom"]), Kept),
        field("function", Kind::Object, Kept),
        field("custom", Kind::Object, Kept),
    ],
};

pub(super) const CHOICE_NAME: Object =
    Object { place: "tool_choice.function", fields: &[field("name", Kind::Text, Kept)] };

pub(super) const MESSAGE: Object = Object {
    place: "messages[] (system, developer, user)",
    fields: &[
        field("role", Kind::Text, Kept),
        field("content", Kind::TextOrList(PARTS_LIMIT), Kept),
        field("name", Kind::Text, Chat(ChatField::MessageName)),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const ANSWER: Object = Object {
    place: "messages[] (assistant)",
    fields: &[
        field("role", Kind::Text, Kept),
        field("content", Kind::TextOrList(PARTS_LIMIT), Kept),
        field("name", Kind::Text, Chat(ChatField::MessageName)),
        field("refusal", Kind::Text, Kept),
        field("tool_calls", Kind::List(TOOLS_LIMIT), Kept),
        field("reasoning_content", Kind::Text, Chat(ChatField::ForeignThinking)),
        field("reasoning", Kind::Text, Chat(ChatField::ForeignThinking)),
        field("reasoning_details", Kind::List(PARTS_LIMIT), Chat(ChatField::ForeignThinking)),
        field("annotations", Kind::List(PARTS_LIMIT), Native),
        field("extra_content", Kind::Object, Native),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
        field("audio", Kind::Any, Refused(never)),
        field("function_call", Kind::Any, Refused(never)),
    ],
};

pub(super) const RESULT: Object = Object {
    place: "messages[] (tool)",
    fields: &[
        field("role", Kind::Text, Kept),
        field("content", Kind::TextOrList(PARTS_LIMIT), Kept),
        field("tool_call_id", Kind::Text, Kept),
        field("name", Kind::Text, Kept),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const CALL: Object = Object {
    place: "messages[].tool_calls[]",
    fields: &[
        field("id", Kind::Text, Kept),
        field("type", Kind::Text, Kept),
        field("index", Kind::Count, Door),
        field("function", Kind::Object, Kept),
        field("extra_content", Kind::Object, Native),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const CALLED: Object = Object {
    place: "messages[].tool_calls[].function",
    fields: &[field("name", Kind::Text, Kept), field("arguments", Kind::Text, Kept)],
};

pub(super) const TEXT: Object = Object {
    place: "messages[].content[] (text)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("text", Kind::Text, Kept),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
        field("prompt_cache_breakpoint", Kind::Object, Native),
    ],
};

pub(super) const IMAGE: Object = Object {
    place: "messages[].content[] (image_url)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("image_url", Kind::TextOrObject, Kept),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
        field("prompt_cache_breakpoint", Kind::Object, Native),
    ],
};

pub(super) const IMAGE_URL: Object = Object {
    place: "messages[].content[].image_url",
    fields: &[
        field("url", Kind::Text, Kept),
        field("detail", Kind::Text, Chat(ChatField::ImageDetail)),
    ],
};

pub(super) const AUDIO: Object = Object {
    place: "messages[].content[] (input_audio)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("input_audio", Kind::Object, Chat(ChatField::AudioInput)),
        field("prompt_cache_breakpoint", Kind::Object, Native),
    ],
};

pub(super) const INPUT_AUDIO: Object = Object {
    place: "messages[].content[].input_audio",
    fields: &[
        field("data", Kind::Text, Chat(ChatField::AudioInput)),
        field("format", Kind::Text, Chat(ChatField::AudioInput)),
    ],
};

pub(super) const FILE: Object = Object {
    place: "messages[].content[] (file)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("file", Kind::Object, Chat(ChatField::Documents)),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
        field("prompt_cache_breakpoint", Kind::Object, Native),
    ],
};

pub(super) const INPUT_FILE: Object = Object {
    place: "messages[].content[].file",
    fields: &[
        field("file_data", Kind::Text, Chat(ChatField::Documents)),
        field("filename", Kind::Text, Chat(ChatField::Documents)),
        field("file_id", Kind::Any, Refused(never)),
    ],
};

pub(super) const REFUSAL: Object = Object {
    place: "messages[].content[] (refusal)",
    fields: &[field("type", Kind::Text, Kept), field("refusal", Kind::Text, Kept)],
};

/// All tables, for the tests.
#[cfg(test)]
pub(in super::super) const ALL: &[&Object] = &[
    &BODY,
    &STREAM_OPTIONS,
    &REASONING,
    &RESPONSE_FORMAT,
    &JSON_SCHEMA,
    &TOOL,
    &FUNCTION,
    &CHOICE,
    &CHOICE_NAME,
    &MESSAGE,
    &ANSWER,
    &RESULT,
    &CALL,
    &CALLED,
    &TEXT,
    &IMAGE,
    &IMAGE_URL,
    &AUDIO,
    &INPUT_AUDIO,
    &FILE,
    &INPUT_FILE,
    &REFUSAL,
];
