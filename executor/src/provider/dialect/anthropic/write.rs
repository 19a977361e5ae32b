//! Writing requests for Anthropic's messages.

use std::fmt::Write as _;

use convergio_domain::chat::{
    ChatField, ChatInterface, ChatMessage, ChatRequest, ChatToolSpec, FilePart, MessagePart,
    MessageRole, NativeFields, RefusalPart, TextPart, ToolChoice, ToolResultPart,
};
use serde_json::{Value, json};

use crate::provider::answer_parts::ANSWER_TOOL;
use crate::provider::dialect::json_fields::{
    arguments_object, description_value, has_tools, is_system_message, put_extra_body, put_options,
    put_present, split_system, write_tools,
};

/// The beta feature that allows system messages within a conversation.
const SYSTEM_BETA: &str = "mid-conversation-system-2026-04-07";
/// Options that go into the body under their own names.
const OPTIONS: [ChatField; 7] = [
    ChatField::TopK,
    ChatField::ServiceTier,
    ChatField::CacheControl,
    ChatField::Thinking,
    ChatField::ContextManagement,
    ChatField::InferenceGeo,
    ChatField::Speed,
];

/// Writes the body of a request.
pub(super) fn write_body(request: &ChatRequest, is_stream: bool) -> Value {
    let (_, messages) = split_system(&request.messages);
    let messages: Vec<Value> = messages.iter().filter_map(write_message).collect();
    let limit = request.max_tokens.unwrap_or_else(|| default_max_tokens(&request.model));
    let mut body = json!({"model": request.model, "messages": messages, "max_tokens": limit});
    let (tools, choice) = tools_and_choice(request);
    let user = request.options.get(&ChatField::User);
    put_present(
        &mut body,
        [
            ("stream", is_stream.then_some(json!(true))),
            ("system", system_content(request)),
            ("temperature", request.temperature.map(|value| json!(value))),
            ("top_p", request.top_p.map(|value| json!(value))),
            ("stop_sequences", (!request.stop.is_empty()).then(|| json!(request.stop))),
            ("tools", tools),
            ("tool_choice", choice),
            ("output_config", output_config(request)),
            ("metadata", user.map(|user| json!({"user_id": user}))),
        ],
    );
    put_options(&mut body, request, &OPTIONS);
    put_extra_body(&mut body, request);
    body
}

/// Returns the limit of an answer that the interface demands, if the request has none: the model's
/// own maximum.
fn default_max_tokens(model: &str) -> u32 {
    const MOST: [(&str, u32); 11] = [
        ("claude-3-7", 64_000),
        ("claude-3-5", 8_192),
        ("claude-3", 4_096),
        ("claude-opus-4-0", 32_000),
        ("claude-opus-4-1", 32_000),
        ("claude-opus-4-20", 32_000),
        ("claude-opus-4-5", 64_000),
        ("claude-sonnet-4", 64_000),
        ("claude-haiku-4", 64_000),
        ("claude-", 128_000),
        ("", 32_000),
    ];
    // The first match counts, so that specific names come before their prefixes.
    let known = MOST.iter().find(|(name, _)| model.contains(name));
    known.map_or(32_000, |(_, tokens)| *tokens)
}

/// Returns the beta features that the request names, and those that it needs.
pub(super) fn beta_features(request: &ChatRequest) -> Vec<String> {
    let mut betas: Vec<String> = match request.options.get(&ChatField::Betas) {
        Some(Value::String(text)) => text.split(',').map(|beta| beta.trim().to_owned()).collect(),
        Some(Value::Array(list)) => {
            list.iter().filter_map(|beta| beta.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    };
    let (_, messages) = split_system(&request.messages);
    if messages.iter().any(is_system_message) {
        betas.push(SYSTEM_BETA.to_owned());
    }
    betas.retain(|beta| !beta.is_empty());
    let mut names = std::collections::HashSet::new();
    // Keeps the first of each name, in order.
    betas.retain(|beta| names.insert(beta.clone()));
    betas
}

/// Returns the instructions before the conversation.
fn system_content(request: &ChatRequest) -> Option<Value> {
    let (leading, _) = split_system(&request.messages);
    let opening_text = request.system.as_deref().filter(|system| !system.is_empty());
    let opening_block = opening_text.map(|system| json!({"type": "text", "text": system}));
    let parts = leading.iter().flat_map(|message| &message.parts);
    let blocks: Vec<Value> =
        opening_block.into_iter().chain(parts.filter_map(content_block)).collect();
    (!blocks.is_empty()).then(|| content_value(blocks))
}

fn write_message(message: &ChatMessage) -> Option<Value> {
    let role = match message.role {
        MessageRole::User => "user",
        MessageRole::Assistant => "assistant",
        MessageRole::System | MessageRole::Developer => "system",
    };
    let blocks: Vec<Value> = message.parts.iter().filter_map(content_block).collect();
    if blocks.is_empty() {
        return None;
    }
    let mut object = json!({"role": role, "content": content_value(blocks)});
    NativeFields::write_into(message.native.as_ref(), ChatInterface::Anthropic, &mut object);
    Some(object)
}

/// Returns a single plain text as a string, anything else as blocks.
fn content_value(blocks: Vec<Value>) -> Value {
    match blocks.as_slice() {
        [Value::Object(block)] if block.len() == 2 && block.contains_key("text") => {
            block["text"].clone()
        }
        _ => Value::Array(blocks),
    }
}

/// Writes a part as a block; `None` for an empty text, which the interface rejects.
fn content_block(part: &MessagePart) -> Option<Value> {
    let (mut block, native) = match part {
        MessagePart::Text(TextPart { text, .. })
        | MessagePart::Refusal(RefusalPart { text, .. })
            if text.is_empty() =>
        {
            return None;
        }
        MessagePart::Refusal(RefusalPart { text, .. }) => {
            (json!({"type": "text", "text": text}), None)
        }
        MessagePart::Text(part) => {
            (json!({"type": "text", "text": part.text}), part.native.as_ref())
        }
        MessagePart::Image(part) => {
            let source =
                json!({"type": "base64", "media_type": part.media_type, "data": part.data});
            (json!({"type": "image", "source": source}), part.native.as_ref())
        }
        MessagePart::ImageUrl(part) => {
            let source = json!({"type": "url", "url": part.url});
            (json!({"type": "image", "source": source}), part.native.as_ref())
        }
        MessagePart::File(file) => (document_block(file), file.native.as_ref()),
        MessagePart::ToolCall(call) => {
            let input = arguments_object(&call.arguments);
            let block = json!({"type": "tool_use", "id": encode_call_id(&call.id),
                "name": call.name, "input": input});
            (block, call.native.as_ref())
        }
        MessagePart::ToolResult(result) => (write_result(result), result.native.as_ref()),
        MessagePart::Thinking(thinking) => {
            let mut block = json!({"type": "thinking", "thinking": thinking.text});
            // Anthropic demands the field, even empty; reasoning of unsigned servers goes back
            // without it.
            if thinking.native.is_none() || !thinking.signature.is_empty() {
                block["signature"] = json!(thinking.signature);
            }
            (block, thinking.native.as_ref())
        }
        MessagePart::Native(native) => return Some(native.block.clone()),
        MessagePart::Audio(_) => return None,
    };
    put_present(&mut block, [("cache_control", part.cache_control().cloned())]);
    NativeFields::write_into(native, ChatInterface::Anthropic, &mut block);
    Some(block)
}

/// Encodes a tool call's id: the interface accepts letters, digits, `_` and `-` only. Other
/// characters are written as code points, so that different ids stay different.
fn encode_call_id(id: &str) -> String {
    let is_accepted = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let mut encoded = String::with_capacity(id.len());
    for letter in id.chars() {
        if is_accepted(letter) {
            encoded.push(letter);
        } else {
            _ = write!(encoded, "_{:x}_", u32::from(letter));
        }
    }
    encoded
}

fn document_block(file: &FilePart) -> Value {
    let source = match (&file.data, &file.text, &file.url) {
        (Some(data), ..) => json!({"type": "base64", "media_type": file.media_type, "data": data}),
        (None, Some(text), _) => json!({"type": "text", "media_type": "text/plain", "data": text}),
        (None, None, url) => json!({"type": "url", "url": url}),
    };
    let mut document = json!({"type": "document", "source": source});
    put_present(&mut document, [("title", file.name.as_ref().map(|name| json!(name)))]);
    document
}

fn write_result(result: &ToolResultPart) -> Value {
    let content = match result.parts.as_slice() {
        [] => json!(result.text),
        parts => parts.iter().filter_map(content_block).collect(),
    };
    let call_id = encode_call_id(&result.id);
    let mut block = json!({"type": "tool_result", "tool_use_id": call_id, "content": content});
    put_present(&mut block, [("is_error", result.is_error.then_some(json!(true)))]);
    block
}

/// Returns whether the schema goes into its own field. Otherwise it becomes a tool that the model
/// must call, whose arguments are the answer.
fn has_output_format(request: &ChatRequest) -> bool {
    request.schema.is_some()
        && (request.door == Some(ChatInterface::Anthropic) || has_tools(request))
}

fn output_config(request: &ChatRequest) -> Option<Value> {
    let mut config = json!({});
    let native = request.native.as_ref();
    // The native field is sent as it came; the schema must not be sent twice.
    let has_older_name = native.is_some_and(|it| it.fields.contains_key("output_format"));
    let schema = request.schema.as_ref().filter(|_| has_output_format(request) && !has_older_name);
    put_present(
        &mut config,
        [
            ("effort", request.effort.as_ref().map(|effort| json!(effort))),
            ("format", schema.map(|schema| json!({"type": "json_schema", "schema": schema}))),
        ],
    );
    (config != json!({})).then_some(config)
}

/// Returns the tools and the tool choice.
fn tools_and_choice(request: &ChatRequest) -> (Option<Value>, Option<Value>) {
    if let Some(schema) = request.schema.as_ref().filter(|_| !has_output_format(request)) {
        // The older way to structured output, which works with every server of the interface.
        let tool = json!({"name": ANSWER_TOOL, "description": "Gives the answer.",
            "input_schema": schema});
        return (Some(json!([tool])), Some(json!({"type": "tool", "name": ANSWER_TOOL})));
    }
    let tools = write_tools(request, write_tool);
    let choice = tools.is_some().then(|| tool_choice(request)).flatten();
    (tools, choice)
}

fn write_tool(tool: &ChatToolSpec) -> Value {
    let mut object = json!({"name": tool.name, "input_schema": tool.parameters});
    put_present(
        &mut object,
        [
            ("description", description_value(&tool.description)),
            ("strict", tool.strict.map(|strict| json!(strict))),
            ("cache_control", tool.cache_control.clone()),
        ],
    );
    NativeFields::write_into(tool.native.as_ref(), ChatInterface::Anthropic, &mut object);
    object
}

fn tool_choice(request: &ChatRequest) -> Option<Value> {
    let mut choice = match &request.tool_choice {
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::None => json!({"type": "none"}),
        ToolChoice::Required => json!({"type": "any"}),
        ToolChoice::Named(name) => json!({"type": "tool", "name": name}),
    };
    let parallel = request.options.get(&ChatField::ParallelToolCalls).and_then(Value::as_bool);
    // `none` has no setting for parallel calls.
    let takes_parallel = request.tool_choice != ToolChoice::None;
    match parallel.filter(|_| takes_parallel) {
        Some(parallel) => choice["disable_parallel_tool_use"] = json!(!parallel),
        None if request.tool_choice.is_auto() => return None,
        None => {}
    }
    Some(choice)
}
