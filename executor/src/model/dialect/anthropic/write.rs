//! Writing requests for Anthropic's messages.

use std::fmt::Write as _;

use convergio_domain::chat::{
    ChatField, ChatRequest, FilePart, Interface, Message, NativeFields, Part, RefusalPart, Role,
    TextPart, ToolChoice, ToolResultPart, ToolSpec,
};
use serde_json::{Value, json};

use super::super::{
    arguments, description, has_tools, is_system, put, put_extra, put_options, split_system,
    tools_of,
};
use super::INTERFACE;
use crate::model::draft::ANSWER_TOOL;

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
pub(super) fn body(request: &ChatRequest, is_stream: bool) -> Value {
    let (_, messages) = split_system(&request.messages);
    let messages: Vec<Value> = messages.iter().filter_map(write_message).collect();
    let limit = request.max_tokens.unwrap_or_else(|| most_tokens(&request.model));
    let mut body = json!({"model": request.model, "messages": messages, "max_tokens": limit});
    let (tools, choice) = tools(request);
    let user = request.options.get(&ChatField::User);
    put(
        &mut body,
        [
            ("stream", is_stream.then_some(json!(true))),
            ("system", system(request)),
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
    put_extra(&mut body, request);
    body
}

/// Returns the limit of an answer that the interface demands, if the request has none: the model's
/// own maximum.
fn most_tokens(model: &str) -> u32 {
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
pub(super) fn betas(request: &ChatRequest) -> Vec<String> {
    let mut betas: Vec<String> = match request.options.get(&ChatField::Betas) {
        Some(Value::String(text)) => text.split(',').map(|beta| beta.trim().to_owned()).collect(),
        Some(Value::Array(list)) => {
            list.iter().filter_map(|beta| beta.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    };
    let (_, messages) = split_system(&request.messages);
    if messages.iter().any(is_system) {
        betas.push(SYSTEM_BETA.to_owned());
    }
    betas.retain(|beta| !beta.is_empty());
    let mut names = std::collections::HashSet::new();
    // Keeps the first of each name, in order.
    betas.retain(|beta| names.insert(beta.clone()));
    betas
}

/// Returns the instructions before the conversation.
fn system(request: &ChatRequest) -> Option<Value> {
    let (leading, _) = split_system(&request.messages);
    let opening = request.system.as_deref().filter(|system| !system.is_empty());
    let opening = opening.map(|system| json!({"type": "text", "text": system}));
    let parts = leading.iter().flat_map(|message| &message.parts);
    let blocks: Vec<Value> = opening.into_iter().chain(parts.filter_map(block)).collect();
    (!blocks.is_empty()).then(|| content_of(blocks))
}

fn write_message(message: &Message) -> Option<Value> {
    let role = match message.role {
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::System | Role::Developer => "system",
    };
    let blocks: Vec<Value> = message.parts.iter().filter_map(block).collect();
    if blocks.is_empty() {
        return None;
    }
    let mut object = json!({"role": role, "content": content_of(blocks)});
    NativeFields::write(message.native.as_ref(), INTERFACE, &mut object);
    Some(object)
}

/// Returns a single plain text as a string, anything else as blocks.
fn content_of(blocks: Vec<Value>) -> Value {
    match blocks.as_slice() {
        [Value::Object(block)] if block.len() == 2 && block.contains_key("text") => {
            block["text"].clone()
        }
        _ => Value::Array(blocks),
    }
}

/// Writes a part as a block; `None` for an empty text, which the interface rejects.
fn block(part: &Part) -> Option<Value> {
    let (mut block, native) = match part {
        Part::Text(TextPart { text, .. }) | Part::Refusal(RefusalPart { text, .. })
            if text.is_empty() =>
        {
            return None;
        }
        Part::Refusal(RefusalPart { text, .. }) => (json!({"type": "text", "text": text}), None),
        Part::Text(part) => (json!({"type": "text", "text": part.text}), part.native.as_ref()),
        Part::Image(part) => {
            let source =
                json!({"type": "base64", "media_type": part.media_type, "data": part.data});
            (json!({"type": "image", "source": source}), part.native.as_ref())
        }
        Part::ImageUrl(part) => {
            let source = json!({"type": "url", "url": part.url});
            (json!({"type": "image", "source": source}), part.native.as_ref())
        }
        Part::File(file) => (document(file), file.native.as_ref()),
        Part::ToolCall(call) => {
            let input = arguments(&call.arguments);
            let block = json!({"type": "tool_use", "id": id(&call.id), "name": call.name,
                "input": input});
            (block, call.native.as_ref())
        }
        Part::ToolResult(result) => (result_of(result), result.native.as_ref()),
        Part::Thinking(thinking) => {
            let mut block = json!({"type": "thinking", "thinking": thinking.text});
            // Anthropic demands the field, even empty; reasoning of unsigned servers goes back
            // without it.
            if thinking.native.is_none() || !thinking.signature.is_empty() {
                block["signature"] = json!(thinking.signature);
            }
            (block, thinking.native.as_ref())
        }
        Part::Native(native) => return Some(native.block.clone()),
        Part::Audio(_) => return None,
    };
    put(&mut block, [("cache_control", part.cache_control().cloned())]);
    NativeFields::write(native, INTERFACE, &mut block);
    Some(block)
}

/// Encodes a tool call's id: the interface accepts letters, digits, `_` and `-` only. Other
/// characters are written as code points, so that different ids stay different.
fn id(id: &str) -> String {
    let is_taken = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let mut taken = String::with_capacity(id.len());
    for letter in id.chars() {
        if is_taken(letter) {
            taken.push(letter);
        } else {
            _ = write!(taken, "_{:x}_", u32::from(letter));
        }
    }
    taken
}

fn document(file: &FilePart) -> Value {
    let source = match (&file.data, &file.text, &file.url) {
        (Some(data), ..) => json!({"type": "base64", "media_type": file.media_type, "data": data}),
        (None, Some(text), _) => json!({"type": "text", "media_type": "text/plain", "data": text}),
        (None, None, url) => json!({"type": "url", "url": url}),
    };
    let mut document = json!({"type": "document", "source": source});
    put(&mut document, [("title", file.name.as_ref().map(|name| json!(name)))]);
    document
}

fn result_of(result: &ToolResultPart) -> Value {
    let content = match result.parts.as_slice() {
        [] => json!(result.text),
        parts => parts.iter().filter_map(block).collect(),
    };
    let mut block =
        json!({"type": "tool_result", "tool_use_id": id(&result.id), "content": content});
    put(&mut block, [("is_error", result.is_error.then_some(json!(true)))]);
    block
}

/// Returns whether the schema goes into its own field. Otherwise it becomes a tool that the model
/// must call, whose arguments are the answer.
fn is_format(request: &ChatRequest) -> bool {
    request.schema.is_some() && (request.door == Some(Interface::Anthropic) || has_tools(request))
}

fn output_config(request: &ChatRequest) -> Option<Value> {
    let mut config = json!({});
    let native = request.native.as_ref();
    // The native field is sent as it came; the schema must not be sent twice.
    let has_older_name = native.is_some_and(|it| it.fields.contains_key("output_format"));
    let schema = request.schema.as_ref().filter(|_| is_format(request) && !has_older_name);
    put(
        &mut config,
        [
            ("effort", request.effort.as_ref().map(|effort| json!(effort))),
            ("format", schema.map(|schema| json!({"type": "json_schema", "schema": schema}))),
        ],
    );
    (config != json!({})).then_some(config)
}

/// Returns the tools and the tool choice.
fn tools(request: &ChatRequest) -> (Option<Value>, Option<Value>) {
    if let Some(schema) = request.schema.as_ref().filter(|_| !is_format(request)) {
        // The older way to structured output, which works with every server of the interface.
        let tool = json!({"name": ANSWER_TOOL, "description": "Gives the answer.",
            "input_schema": schema});
        return (Some(json!([tool])), Some(json!({"type": "tool", "name": ANSWER_TOOL})));
    }
    let tools = tools_of(request, tool);
    let choice = tools.is_some().then(|| choice(request)).flatten();
    (tools, choice)
}

fn tool(tool: &ToolSpec) -> Value {
    let mut object = json!({"name": tool.name, "input_schema": tool.parameters});
    put(
        &mut object,
        [
            ("description", description(&tool.description)),
            ("strict", tool.strict.map(|strict| json!(strict))),
            ("cache_control", tool.cache_control.clone()),
        ],
    );
    NativeFields::write(tool.native.as_ref(), INTERFACE, &mut object);
    object
}

fn choice(request: &ChatRequest) -> Option<Value> {
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
