//! Declared fields of messages.

use convergio_domain::chat::ChatField;

use super::super::conversation::{MESSAGES_LIMIT, PARTS_LIMIT, TOOLS_LIMIT};
use super::super::known::Fate::{Chat, Kept, Native, Option, Refused};
use super::super::known::{Fate, Kind, Object, field, is_nothing, never};

pub(super) const BODY: Object = Object {
    place: "",
    fields: &[
        field("model", Kind::Text, Kept),
        field("messages", Kind::List(MESSAGES_LIMIT), Kept),
        field("system", Kind::TextOrList(PARTS_LIMIT), Kept),
        field("max_tokens", Kind::Tokens, Kept),
        field("stream", Kind::Flag, Fate::Door),
        field("temperature", Kind::Number(0.0, 1.0), Chat(ChatField::Temperature)),
        field("top_p", Kind::Number(0.0, 1.0), Chat(ChatField::TopP)),
        field("top_k", Kind::Count, Option(ChatField::TopK)),
        field("stop_sequences", Kind::List(8192), Chat(ChatField::Stop)),
        field("tools", Kind::List(TOOLS_LIMIT), Kept),
        field("tool_choice", Kind::Object, Chat(ChatField::ToolChoice)),
        field("thinking", Kind::Object, Option(ChatField::Thinking)),
        field("metadata", Kind::Object, Chat(ChatField::User)),
        field("service_tier", Kind::Text, Option(ChatField::ServiceTier)),
        field("cache_control", Kind::Object, Option(ChatField::CacheControl)),
        field("context_management", Kind::Object, Option(ChatField::ContextManagement)),
        field("output_config", Kind::Object, Chat(ChatField::Schema)),
        field("output_format", Kind::Object, Chat(ChatField::Schema)),
        field("inference_geo", Kind::Text, Option(ChatField::InferenceGeo)),
        field("speed", Kind::Text, Option(ChatField::Speed)),
        field("betas", Kind::List(64), Chat(ChatField::Betas)),
        field("compaction", Kind::Any, Native),
        field("safeguards", Kind::Any, Native),
        field("container", Kind::Any, Refused(never)),
        // Anthropic's SDKs ask for a thread in their tool runners, and know this refusal.
        field("thread", Kind::Any, Refused(never)),
        field("mcp_servers", Kind::Any, Refused(is_nothing)),
    ],
};

pub(super) const METADATA: Object =
    Object { place: "metadata", fields: &[field("user_id", Kind::Text, Chat(ChatField::User))] };

pub(super) const OUTPUT_CONFIG: Object = Object {
    place: "output_config",
    fields: &[
        field("effort", Kind::Text, Chat(ChatField::Effort)),
        field("format", Kind::Object, Chat(ChatField::Schema)),
        field("task_budget", Kind::Any, Native),
    ],
};

pub(super) const FORMAT: Object = Object {
    place: "output_config.format",
    fields: &[
        field("type", Kind::Words(&["json_schema"]), Kept),
        field("schema", Kind::Object, Chat(ChatField::Schema)),
        field("name", Kind::Text, Chat(ChatField::Schema)),
        field("description", Kind::Text, Chat(ChatField::Schema)),
        field("strict", Kind::Flag, Chat(ChatField::Schema)),
    ],
};

pub(super) const TOOL: Object = Object {
    place: "tools[]",
    fields: &[
        field("type", Kind::Text, Kept),
        field("name", Kind::Text, Kept),
        field("description", Kind::Text, Kept),
        field("input_schema", Kind::Object, Kept),
        field("strict", Kind::Flag, Chat(ChatField::ToolStrict)),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
        field("input_examples", Kind::List(1024), Native),
        field("defer_loading", Kind::Flag, Native),
        field("allowed_callers", Kind::List(64), Native),
        field("eager_input_streaming", Kind::Flag, Native),
    ],
};

pub(super) const CHOICE: Object = Object {
    place: "tool_choice",
    fields: &[
        field("type", Kind::Words(&["auto", "any", "none", "tool"]), Kept),
        field("name", Kind::Text, Kept),
        field("disable_parallel_tool_use", Kind::Flag, Chat(ChatField::ParallelToolCalls)),
    ],
};

pub(super) const MESSAGE: Object = Object {
    place: "messages[]",
    fields: &[
        field("role", Kind::Words(&["user", "assistant", "system"]), Kept),
        field("content", Kind::TextOrList(PARTS_LIMIT), Kept),
    ],
};

pub(super) const TEXT: Object = Object {
    place: "messages[].content[] (text)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("text", Kind::Text, Kept),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
        field("citations", Kind::List(PARTS_LIMIT), Native),
    ],
};

pub(super) const IMAGE: Object = Object {
    place: "messages[].content[] (image)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("source", Kind::Object, Kept),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const SOURCE: Object = Object {
    place: "messages[].content[].source",
    fields: &[
        field("type", Kind::Text, Kept),
        field("media_type", Kind::Text, Kept),
        field("data", Kind::Text, Kept),
        field("url", Kind::Text, Kept),
        field("file_id", Kind::Text, Kept),
        field("content", Kind::TextOrList(PARTS_LIMIT), Kept),
    ],
};

pub(super) const DOCUMENT: Object = Object {
    place: "messages[].content[] (document)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("source", Kind::Object, Chat(ChatField::Documents)),
        field("title", Kind::Text, Native),
        field("context", Kind::Text, Native),
        field("citations", Kind::Object, Native),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
    ],
};

pub(super) const THINKING: Object = Object {
    place: "messages[].content[] (thinking)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("thinking", Kind::Text, Chat(ChatField::ForeignThinking)),
        field("signature", Kind::Text, Chat(ChatField::ForeignThinking)),
    ],
};

pub(super) const REDACTED: Object = Object {
    place: "messages[].content[] (redacted_thinking)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("data", Kind::Text, Chat(ChatField::ForeignThinking)),
    ],
};

pub(super) const CALL: Object = Object {
    place: "messages[].content[] (tool_use)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("id", Kind::Text, Kept),
        field("name", Kind::Text, Kept),
        field("input", Kind::Object, Kept),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
        field("caller", Kind::Object, Native),
    ],
};

pub(super) const RESULT: Object = Object {
    place: "messages[].content[] (tool_result)",
    fields: &[
        field("type", Kind::Text, Kept),
        field("tool_use_id", Kind::Text, Kept),
        field("content", Kind::TextOrList(PARTS_LIMIT), Kept),
        field("is_error", Kind::Flag, Kept),
        field("cache_control", Kind::Object, Chat(ChatField::CacheControl)),
    ],
};

/// All tables, for the tests.
#[cfg(test)]
pub(in super::super) const ALL: &[&Object] = &[
    &BODY,
    &METADATA,
    &OUTPUT_CONFIG,
    &FORMAT,
    &TOOL,
    &CHOICE,
    &MESSAGE,
    &TEXT,
    &IMAGE,
    &SOURCE,
    &DOCUMENT,
    &THINKING,
    &REDACTED,
    &CALL,
    &RESULT,
];

/// Block types that only Anthropic has; they pass unchanged.
pub(in super::super) const NATIVE: [&str; 14] = [
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
