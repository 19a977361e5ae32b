//! Declared fields of responses.

use convergio_domain::chat::ChatField;

use super::super::chat::tables::MODELS_LIMIT;
use super::super::conversation::{ITEMS_LIMIT, PARTS_LIMIT, TOOLS_LIMIT};
use super::super::known::Fate::{Chat, Door, Kept, LeftOut, Native, Option, Refused};
use super::super::known::{Kind, Object, field, is_nothing, never};

pub(super) const BODY: Object = Object {
    place: "",
    fields: &[
        field("model", Kind::Text, Kept),
        field("models", Kind::List(MODELS_LIMIT), Door),
        field("input", Kind::TextOrList(ITEMS_LIMIT), Kept),
        field("instructions", Kind::Text, Kept),
        field("previous_response_id", Kind::Text, Door),
        field("stream", Kind::Flag, Door),
        field("stream_options", Kind::Object, Door),
        field("tools", Kind::List(TOOLS_LIMIT), Kept),
        field("tool_choice", Kind::TextOrObject, Chat(ChatField::ToolChoice)),
        field("parallel_tool_calls", Kind::Flag, Option(ChatField::ParallelToolCalls)),
        field("max_output_tokens", Kind::Tokens, Kept),
        field("max_tool_calls", Kind::Count, Option(ChatField::MaxToolCalls)),
        field("temperature", Kind::Number(0.0, 2.0), Chat(ChatField::Temperature)),
        field("top_p", Kind::Number(0.0, 1.0), Chat(ChatField::TopP)),
        field("top_logprobs", Kind::Any, Refused(is_nothing)),
        field("text", Kind::Object, Chat(ChatField::Schema)),
        field("reasoning", Kind::Object, Chat(ChatField::Effort)),
        field("include", Kind::List(64), Option(ChatField::Include)),
        field("truncation", Kind::Text, Option(ChatField::Truncation)),
        field("store", Kind::Flag, Option(ChatField::Store)),
        field("metadata", Kind::Object, Option(ChatField::Metadata)),
        field("user", Kind::Text, Option(ChatField::User)),
        field("safety_identifier", Kind::Text, Option(ChatField::SafetyIdentifier)),
        field("prompt_cache_key", Kind::Text, Option(ChatField::PromptCacheKey)),
        field("prompt_cache_retention", Kind::Text, Option(ChatField::PromptCacheRetention)),
        field("service_tier", Kind::Text, Option(ChatField::ServiceTier)),
        field("moderation", Kind::Any, Option(ChatField::Moderation)),
        field("prompt_cache_options", Kind::Object, Native),
        field("context_management", Kind::List(64), Native),
        field("access_programs", Kind::Object, Native),
        field("image", Kind::Object, Native),
        field("client_metadata", Kind::Object, LeftOut),
        field("background", Kind::Any, Refused(is_nothing)),
        field("background_options", Kind::Any, Refused(is_nothing)),
        field("conversation", Kind::Any, Refused(never)),
        field("prompt", Kind::Any, Refused(never)),
    ],
};

pub(super) const STREAM_OPTIONS: Object =
    Object { place: "stream_options", fields: &[field("include_obfuscation", Kind::Flag, Door)] };

pub(super) const TEXT_OPTIONS: Object = Object {
    place: "text",
    fields: &[
        field("format", Kind::Object, Chat(ChatField::Schema)),
        field("verbosity", Kind::Text, Option(ChatField::Verbosity)),
    ],
};

pub(super) const FORMAT: Object = Object {
    place: "text.format",
    fields: &[
        field("type", Kind::Words(&["text", "json_object", "json_schema"]), Kept),
        field("name", Kind::Text, Chat(ChatField::Schema)),
        field("description", Kind::Text, Chat(ChatField::Schema)),
        field("schema", Kind::Object, Chat(ChatField::Schema)),
        field("strict", Kind::Flag, Chat(ChatField::Schema)),
    ],
};

pub(super) const REASONING: Object = Object {
    place: "reasoning",
    fields: &[
        field("effort", Kind::Text, Chat(ChatField::Effort)),
        field("summary", Kind::Text, Option(ChatField::ReasoningSummary)),
        field("generate_summary", Kind::Text, Option(ChatField::ReasoningSummary)),
        field("context", Kind::Any, Native),
        field("mode", Kind::Any, Native),
    ],
};

pub(super) const TOOL: Object = Object {
    place: "tools[]",
    fields: &[
        field("type", Kind::Text, Kept),
        field("name", Kind::Text, Kept),
        field("description", Kind::Text, Kept),
        field("parameters", Kind::Object, Kept),
        field("strict", Kind::Flag, Chat(ChatField::ToolStrict)),
        field("defer_loading", Kind::Flag, Native),
        field("allowed_callers", Kind::List(64), Native),
        field("output_schema", Kind::Object, Native),
    ],
};

pub(super) const CHOICE: Object = Object {
    place: "tool_choice",
    fields: &[
        field("type", Kind::Words(&["function", "custom"]), Kept),
        field("name", Kind::Text, Kept),
    ],
};

pub(super) const MESSAGE: Object = Object {
    place: "input[] (message)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("role", Kind::Words(&["user", "assistant", "system", "developer"]), Kept),
        field("content", Kind::TextOrList(PARTS_LIMIT), Kept),
        field("id", Kind::Text, Native),
        field("status", Kind::Text, Native),
        field("phase", Kind::Text, Native),
        field("end_turn", Kind::Flag, Native),
    ],
};

pub(super) const TEXT: Object = Object {
    place: "input[].content[] (input_text, output_text)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("text", Kind::Text, Kept),
        field("annotations", Kind::List(PARTS_LIMIT), Native),
        field("logprobs", Kind::List(ITEMS_LIMIT), Native),
        field("prompt_cache_breakpoint", Kind::Object, Native),
    ],
};

pub(super) const IMAGE: Object = Object {
    place: "input[].content[] (input_image)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("image_url", Kind::Text, Kept),
        field("detail", Kind::Text, Chat(ChatField::ImageDetail)),
        field("prompt_cache_breakpoint", Kind::Object, Native),
        field("file_id", Kind::Any, Refused(never)),
    ],
};

pub(super) const FILE: Object = Object {
    place: "input[].content[] (input_file)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("file_data", Kind::Text, Chat(ChatField::Documents)),
        field("file_url", Kind::Text, Chat(ChatField::Documents)),
        field("filename", Kind::Text, Chat(ChatField::Documents)),
        field("detail", Kind::Text, Native),
        field("prompt_cache_breakpoint", Kind::Object, Native),
        field("file_id", Kind::Any, Refused(never)),
    ],
};

pub(super) const AUDIO: Object = Object {
    place: "input[].content[] (input_audio)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("input_audio", Kind::Object, Chat(ChatField::AudioInput)),
    ],
};

pub(super) const INPUT_AUDIO: Object = Object {
    place: "input[].content[].input_audio",
    fields: &[
        field("data", Kind::Text, Chat(ChatField::AudioInput)),
        field("format", Kind::Text, Chat(ChatField::AudioInput)),
    ],
};

pub(super) const REFUSAL: Object = Object {
    place: "input[].content[] (refusal)",
    fields: &[field("type", Kind::Text, Kept), field("refusal", Kind::Text, Kept)],
};

pub(super) const CALL: Object = Object {
    place: "input[] (function_call)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("call_id", Kind::Text, Kept),
        field("name", Kind::Text, Kept),
        field("arguments", Kind::Text, Kept),
        field("id", Kind::Text, Native),
        field("status", Kind::Text, Native),
        field("namespace", Kind::Text, Native),
        field("caller", Kind::Object, Native),
        field("async", Kind::Flag, Native),
    ],
};

pub(super) const RESULT: Object = Object {
    place: "input[] (function_call_output)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("call_id", Kind::Text, Kept),
        field("output", Kind::TextOrList(PARTS_LIMIT), Kept),
        field("id", Kind::Text, Native),
        field("status", Kind::Text, Native),
        field("caller", Kind::Object, Native),
        field("name", Kind::Text, Native),
        field("namespace", Kind::Text, Native),
    ],
};

pub(super) const REASONING_ITEM: Object = Object {
    place: "input[] (reasoning)",
    fields: &[
        field("type", Kind::Text, Native),
        field("id", Kind::Text, Native),
        field("summary", Kind::List(PARTS_LIMIT), Native),
        field("content", Kind::List(PARTS_LIMIT), Native),
        field("encrypted_content", Kind::Text, Native),
        field("status", Kind::Text, Native),
    ],
};

/// All tables, for the tests.
#[cfg(test)]
pub(in super::super) const ALL: &[&Object] = &[
    &BODY,
    &STREAM_OPTIONS,
    &TEXT_OPTIONS,
    &FORMAT,
    &REASONING,
    &TOOL,
    &CHOICE,
    &MESSAGE,
    &TEXT,
    &IMAGE,
    &FILE,
    &AUDIO,
    &INPUT_AUDIO,
    &REFUSAL,
    &CALL,
    &RESULT,
    &REASONING_ITEM,
];

/// Item types that only the interface of responses has; they pass unchanged.
pub(in super::super) const NATIVE: [&str; 28] = [
    "additional_tools",
    "apply_patch_call",
    "apply_patch_call_output",
    "code_interpreter_call",
    "compaction",
    "compaction_summary",
    "compaction_trigger",
    "computer_call",
    "computer_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "file_search_call",
    "ghost_snapshot",
    "image_generation_call",
    "item_reference",
    "local_shell_call",
    "local_shell_call_output",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "mcp_list_tools",
    "program",
    "program_output",
    "shell_call",
    "shell_call_output",
    "tool_search_call",
    "tool_search_output",
    "web_search_call",
];
