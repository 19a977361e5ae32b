//! Declared fields of responses.

use convergio_domain::chat::ChatField;

use super::super::chat::tables::MODELS_LIMIT;
use super::super::conversation::{ITEMS_LIMIT, PARTS_LIMIT, TOOLS_LIMIT};
use super::super::field_table::FieldHandling::{
    Chat, ChatOption, Dialect, Kept, LeftOut, Native, Refused,
};
use super::super::field_table::{ObjectSpec, ValueKind, field, is_nothing, never};

pub(super) const BODY: ObjectSpec = ObjectSpec {
    place: "",
    fields: &[
        field("model", ValueKind::Text, Kept),
        field("models", ValueKind::List(MODELS_LIMIT), Dialect),
        field("input", ValueKind::TextOrList(ITEMS_LIMIT), Kept),
        field("instructions", ValueKind::Text, Kept),
        field("previous_response_id", ValueKind::Text, Dialect),
        field("stream", ValueKind::Flag, Dialect),
        field("stream_options", ValueKind::Object, Dialect),
        field("tools", ValueKind::List(TOOLS_LIMIT), Kept),
        field("tool_choice", ValueKind::TextOrObject, Chat(ChatField::ToolChoice)),
        field("parallel_tool_calls", ValueKind::Flag, ChatOption(ChatField::ParallelToolCalls)),
        field("max_output_tokens", ValueKind::Tokens, Kept),
        field("max_tool_calls", ValueKind::Count, ChatOption(ChatField::MaxToolCalls)),
        field("temperature", ValueKind::Number(0.0, 2.0), Chat(ChatField::Temperature)),
        field("top_p", ValueKind::Number(0.0, 1.0), Chat(ChatField::TopP)),
        field("top_logprobs", ValueKind::Any, Refused(is_nothing)),
        field("text", ValueKind::Object, Chat(ChatField::Schema)),
        field("reasoning", ValueKind::Object, Chat(ChatField::Effort)),
        field("include", ValueKind::List(64), ChatOption(ChatField::Include)),
        field("truncation", ValueKind::Text, ChatOption(ChatField::Truncation)),
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
        field("service_tier", ValueKind::Text, ChatOption(ChatField::ServiceTier)),
        field("moderation", ValueKind::Any, ChatOption(ChatField::Moderation)),
        field("prompt_cache_options", ValueKind::Object, Native),
        field("context_management", ValueKind::List(64), Native),
        field("access_programs", ValueKind::Object, Native),
        field("image", ValueKind::Object, Native),
        field("client_metadata", ValueKind::Object, LeftOut),
        field("background", ValueKind::Any, Refused(is_nothing)),
        field("background_options", ValueKind::Any, Refused(is_nothing)),
        field("conversation", ValueKind::Any, Refused(never)),
        field("prompt", ValueKind::Any, Refused(never)),
    ],
};

pub(super) const STREAM_OPTIONS: ObjectSpec = ObjectSpec {
    place: "stream_options",
    fields: &[field("include_obfuscation", ValueKind::Flag, Dialect)],
};

pub(super) const TEXT_OPTIONS: ObjectSpec = ObjectSpec {
    place: "text",
    fields: &[
        field("format", ValueKind::Object, Chat(ChatField::Schema)),
        field("verbosity", ValueKind::Text, ChatOption(ChatField::Verbosity)),
    ],
};

pub(super) const FORMAT: ObjectSpec = ObjectSpec {
    place: "text.format",
    fields: &[
        field("type", ValueKind::Words(&["text", "json_object", "json_schema"]), Kept),
        field("name", ValueKind::Text, Chat(ChatField::Schema)),
        field("description", ValueKind::Text, Chat(ChatField::Schema)),
        field("schema", ValueKind::Object, Chat(ChatField::Schema)),
        field("strict", ValueKind::Flag, Chat(ChatField::Schema)),
    ],
};

pub(super) const REASONING: ObjectSpec = ObjectSpec {
    place: "reasoning",
    fields: &[
        field("effort", ValueKind::Text, Chat(ChatField::Effort)),
        field("summary", ValueKind::Text, ChatOption(ChatField::ReasoningSummary)),
        field("generate_summary", ValueKind::Text, ChatOption(ChatField::ReasoningSummary)),
        field("context", ValueKind::Any, Native),
        field("mode", ValueKind::Any, Native),
    ],
};

pub(super) const TOOL: ObjectSpec = ObjectSpec {
    place: "tools[]",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("name", ValueKind::Text, Kept),
        field("description", ValueKind::Text, Kept),
        field("parameters", ValueKind::Object, Kept),
        field("strict", ValueKind::Flag, Chat(ChatField::ToolStrict)),
        field("defer_loading", ValueKind::Flag, Native),
        field("allowed_callers", ValueKind::List(64), Native),
        field("output_schema", ValueKind::Object, Native),
    ],
};

pub(super) const TOOL_CHOICE: ObjectSpec = ObjectSpec {
    place: "tool_choice",
    fields: &[
        field("type", ValueKind::Words(&["function", "custom"]), Kept),
        field("name", ValueKind::Text, Kept),
    ],
};

pub(super) const MESSAGE: ObjectSpec = ObjectSpec {
    place: "input[] (message)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("role", ValueKind::Words(&["user", "assistant", "system", "developer"]), Kept),
        field("content", ValueKind::TextOrList(PARTS_LIMIT), Kept),
        field("id", ValueKind::Text, Native),
        field("status", ValueKind::Text, Native),
        field("phase", ValueKind::Text, Native),
        field("end_turn", ValueKind::Flag, Native),
    ],
};

pub(super) const TEXT: ObjectSpec = ObjectSpec {
    place: "input[].content[] (input_text, output_text)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("text", ValueKind::Text, Kept),
        field("annotations", ValueKind::List(PARTS_LIMIT), Native),
        field("logprobs", ValueKind::List(ITEMS_LIMIT), Native),
        field("prompt_cache_breakpoint", ValueKind::Object, Native),
    ],
};

pub(super) const IMAGE: ObjectSpec = ObjectSpec {
    place: "input[].content[] (input_image)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("image_url", ValueKind::Text, Kept),
        field("detail", ValueKind::Text, Chat(ChatField::ImageDetail)),
        field("prompt_cache_breakpoint", ValueKind::Object, Native),
        field("file_id", ValueKind::Any, Refused(never)),
    ],
};

pub(super) const FILE: ObjectSpec = ObjectSpec {
    place: "input[].content[] (input_file)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("file_data", ValueKind::Text, Chat(ChatField::Documents)),
        field("file_url", ValueKind::Text, Chat(ChatField::Documents)),
        field("filename", ValueKind::Text, Chat(ChatField::Documents)),
        field("detail", ValueKind::Text, Native),
        field("prompt_cache_breakpoint", ValueKind::Object, Native),
        field("file_id", ValueKind::Any, Refused(never)),
    ],
};

pub(super) const AUDIO: ObjectSpec = ObjectSpec {
    place: "input[].content[] (input_audio)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("input_audio", ValueKind::Object, Chat(ChatField::AudioInput)),
    ],
};

pub(super) const INPUT_AUDIO: ObjectSpec = ObjectSpec {
    place: "input[].content[].input_audio",
    fields: &[
        field("data", ValueKind::Text, Chat(ChatField::AudioInput)),
        field("format", ValueKind::Text, Chat(ChatField::AudioInput)),
    ],
};

pub(super) const REFUSAL: ObjectSpec = ObjectSpec {
    place: "input[].content[] (refusal)",
    fields: &[field("type", ValueKind::Text, Kept), field("refusal", ValueKind::Text, Kept)],
};

pub(super) const FUNCTION_CALL: ObjectSpec = ObjectSpec {
    place: "input[] (function_call)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("call_id", ValueKind::Text, Kept),
        field("name", ValueKind::Text, Kept),
        field("arguments", ValueKind::Text, Kept),
        field("id", ValueKind::Text, Native),
        field("status", ValueKind::Text, Native),
        field("namespace", ValueKind::Text, Native),
        field("caller", ValueKind::Object, Native),
        field("async", ValueKind::Flag, Native),
    ],
};

pub(super) const FUNCTION_CALL_OUTPUT: ObjectSpec = ObjectSpec {
    place: "input[] (function_call_output)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("call_id", ValueKind::Text, Kept),
        field("output", ValueKind::TextOrList(PARTS_LIMIT), Kept),
        field("id", ValueKind::Text, Native),
        field("status", ValueKind::Text, Native),
        field("caller", ValueKind::Object, Native),
        field("name", ValueKind::Text, Native),
        field("namespace", ValueKind::Text, Native),
    ],
};

pub(super) const REASONING_ITEM: ObjectSpec = ObjectSpec {
    place: "input[] (reasoning)",
    fields: &[
        field("type", ValueKind::Text, Native),
        field("id", ValueKind::Text, Native),
        field("summary", ValueKind::List(PARTS_LIMIT), Native),
        field("content", ValueKind::List(PARTS_LIMIT), Native),
        field("encrypted_content", ValueKind::Text, Native),
        field("status", ValueKind::Text, Native),
    ],
};

/// All tables, for the tests.
#[cfg(test)]
pub(in super::super) const ALL: &[&ObjectSpec] = &[
    &BODY,
    &STREAM_OPTIONS,
    &TEXT_OPTIONS,
    &FORMAT,
    &REASONING,
    &TOOL,
    &TOOL_CHOICE,
    &MESSAGE,
    &TEXT,
    &IMAGE,
    &FILE,
    &AUDIO,
    &INPUT_AUDIO,
    &REFUSAL,
    &FUNCTION_CALL,
    &FUNCTION_CALL_OUTPUT,
    &REASONING_ITEM,
];

/// Item types that only the interface of responses has; they pass unchanged.
pub(in super::super) const NATIVE_ITEMS: [&str; 28] = [
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
