//! Declared fields of messages.

use convergio_domain::chat::ChatField;

use super::super::conversation::{MESSAGES_LIMIT, PARTS_LIMIT, TOOLS_LIMIT};
use super::super::field_table::FieldHandling::{Chat, ChatOption, Kept, Native, Refused};
use super::super::field_table::{FieldHandling, ObjectSpec, ValueKind, field, is_nothing, never};

pub(super) const BODY: ObjectSpec = ObjectSpec {
    place: "",
    fields: &[
        field("model", ValueKind::Text, Kept),
        field("messages", ValueKind::List(MESSAGES_LIMIT), Kept),
        field("system", ValueKind::TextOrList(PARTS_LIMIT), Kept),
        field("max_tokens", ValueKind::Tokens, Kept),
        field("stream", ValueKind::Flag, FieldHandling::Dialect),
        field("temperature", ValueKind::Number(0.0, 1.0), Chat(ChatField::Temperature)),
        field("top_p", ValueKind::Number(0.0, 1.0), Chat(ChatField::TopP)),
        field("top_k", ValueKind::Count, ChatOption(ChatField::TopK)),
        field("stop_sequences", ValueKind::List(8192), Chat(ChatField::Stop)),
        field("tools", ValueKind::List(TOOLS_LIMIT), Kept),
        field("tool_choice", ValueKind::Object, Chat(ChatField::ToolChoice)),
        field("thinking", ValueKind::Object, ChatOption(ChatField::Thinking)),
        field("metadata", ValueKind::Object, Chat(ChatField::User)),
        field("service_tier", ValueKind::Text, ChatOption(ChatField::ServiceTier)),
        field("cache_control", ValueKind::Object, ChatOption(ChatField::CacheControl)),
        field("context_management", ValueKind::Object, ChatOption(ChatField::ContextManagement)),
        field("output_config", ValueKind::Object, Chat(ChatField::Schema)),
        field("output_format", ValueKind::Object, Chat(ChatField::Schema)),
        field("inference_geo", ValueKind::Text, ChatOption(ChatField::InferenceGeo)),
        field("speed", ValueKind::Text, ChatOption(ChatField::Speed)),
        field("betas", ValueKind::List(64), Chat(ChatField::Betas)),
        field("compaction", ValueKind::Any, Native),
        field("safeguards", ValueKind::Any, Native),
        field("container", ValueKind::Any, Refused(never)),
        // Anthropic's SDKs ask for a thread in their tool runners, and know this refusal.
        field("thread", ValueKind::Any, Refused(never)),
        field("mcp_servers", ValueKind::Any, Refused(is_nothing)),
    ],
};

pub(super) const METADATA: ObjectSpec = ObjectSpec {
    place: "metadata",
    fields: &[field("user_id", ValueKind::Text, Chat(ChatField::User))],
};

pub(super) const OUTPUT_CONFIG: ObjectSpec = ObjectSpec {
    place: "output_config",
    fields: &[
        field("effort", ValueKind::Text, Chat(ChatField::Effort)),
        field("format", ValueKind::Object, Chat(ChatField::Schema)),
        field("task_budget", ValueKind::Any, Native),
    ],
};

pub(super) const FORMAT: ObjectSpec = ObjectSpec {
    place: "output_config.format",
    fields: &[
        field("type", ValueKind::Words(&["json_schema"]), Kept),
        field("schema", ValueKind::Object, Chat(ChatField::Schema)),
        field("name", ValueKind::Text, Chat(ChatField::Schema)),
        field("description", ValueKind::Text, Chat(ChatField::Schema)),
        field("strict", ValueKind::Flag, Chat(ChatField::Schema)),
    ],
};

pub(super) const TOOL: ObjectSpec = ObjectSpec {
    place: "tools[]",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("name", ValueKind::Text, Kept),
        field("description", ValueKind::Text, Kept),
        field("input_schema", ValueKind::Object, Kept),
        field("strict", ValueKind::Flag, Chat(ChatField::ToolStrict)),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
        field("input_examples", ValueKind::List(1024), Native),
        field("defer_loading", ValueKind::Flag, Native),
        field("allowed_callers", ValueKind::List(64), Native),
        field("eager_input_streaming", ValueKind::Flag, Native),
    ],
};

pub(super) const TOOL_CHOICE: ObjectSpec = ObjectSpec {
    place: "tool_choice",
    fields: &[
        field("type", ValueKind::Words(&["auto", "any", "none", "tool"]), Kept),
        field("name", ValueKind::Text, Kept),
        field("disable_parallel_tool_use", ValueKind::Flag, Chat(ChatField::ParallelToolCalls)),
    ],
};

pub(super) const MESSAGE: ObjectSpec = ObjectSpec {
    place: "messages[]",
    fields: &[
        field("role", ValueKind::Words(&["user", "assistant", "system"]), Kept),
        field("content", ValueKind::TextOrList(PARTS_LIMIT), Kept),
    ],
};

pub(super) const TEXT: ObjectSpec = ObjectSpec {
    place: "messages[].content[] (text)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("text", ValueKind::Text, Kept),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
        field("citations", ValueKind::List(PARTS_LIMIT), Native),
    ],
};

pub(super) const IMAGE: ObjectSpec = ObjectSpec {
    place: "messages[].content[] (image)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("source", ValueKind::Object, Kept),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const SOURCE: ObjectSpec = ObjectSpec {
    place: "messages[].content[].source",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("media_type", ValueKind::Text, Kept),
        field("data", ValueKind::Text, Kept),
        field("url", ValueKind::Text, Kept),
        field("file_id", ValueKind::Text, Kept),
        field("content", ValueKind::TextOrList(PARTS_LIMIT), Kept),
    ],
};

pub(super) const DOCUMENT: ObjectSpec = ObjectSpec {
    place: "messages[].content[] (document)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("source", ValueKind::Object, Chat(ChatField::Documents)),
        field("title", ValueKind::Text, Native),
        field("context", ValueKind::Text, Native),
        field("citations", ValueKind::Object, Native),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const THINKING: ObjectSpec = ObjectSpec {
    place: "messages[].content[] (thinking)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("thinking", ValueKind::Text, Chat(ChatField::ForeignThinking)),
        field("signature", ValueKind::Text, Chat(ChatField::ForeignThinking)),
    ],
};

pub(super) const REDACTED_THINKING: ObjectSpec = ObjectSpec {
    place: "messages[].content[] (redacted_thinking)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("data", ValueKind::Text, Chat(ChatField::ForeignThinking)),
    ],
};

pub(super) const TOOL_USE: ObjectSpec = ObjectSpec {
    place: "messages[].content[] (tool_use)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("id", ValueKind::Text, Kept),
        field("name", ValueKind::Text, Kept),
        field("input", ValueKind::Object, Kept),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
        field("caller", ValueKind::Object, Native),
    ],
};

pub(super) const TOOL_RESULT: ObjectSpec = ObjectSpec {
    place: "messages[].content[] (tool_result)",
    fields: &[
        field("type", ValueKind::Text, Kept),
        field("tool_use_id", ValueKind::Text, Kept),
        field("content", ValueKind::TextOrList(PARTS_LIMIT), Kept),
        field("is_error", ValueKind::Flag, Kept),
        field("cache_control", ValueKind::Object, Chat(ChatField::CacheControl)),
    ],
};

/// All tables, for the tests.
#[cfg(test)]
pub(in super::super) const ALL: &[&ObjectSpec] = &[
    &BODY,
    &METADATA,
    &OUTPUT_CONFIG,
    &FORMAT,
    &TOOL,
    &TOOL_CHOICE,
    &MESSAGE,
    &TEXT,
    &IMAGE,
    &SOURCE,
    &DOCUMENT,
    &THINKING,
    &REDACTED_THINKING,
    &TOOL_USE,
    &TOOL_RESULT,
];

/// Block types that only Anthropic has; they pass unchanged.
pub(in super::super) const NATIVE_BLOCKS: [&str; 14] = [
    "advisor_tool_result",
    "bash_code_execution_tool_result",
    "code_execution_tool_result",
    "compaction",
    "container_upload",
    "mcp_tool_result",
    "mcp_tool_use",
    "search_result",
    "server_tool_use",
    "text_editor_code_execution_tool_result",
    "tool_reference",
    "tool_search_tool_result",
    "web_fetch_tool_result",
    "web_search_tool_result",
];
