//! Writing requests for OpenAI's responses.

use convergio_domain::chat::{
    ChatField, ChatInterface, ChatMessage, ChatRequest, ChatToolSpec, FilePart, MessagePart,
    MessageRole, NativeFields, RefusalPart, TextPart, ToolChoice, ToolResultPart,
};
use serde_json::{Map, Value, json};

use super::super::openai::schema_fields;
use crate::provider::dialect::json_fields::{
    data_url, description_value, has_tools, put_extra_body, put_options, put_present, write_tools,
};

/// Options that go into the body under their own names.
const OPTIONS: [ChatField; 12] = [
    ChatField::ParallelToolCalls,
    ChatField::ServiceTier,
    ChatField::Store,
    ChatField::Metadata,
    ChatField::User,
    ChatField::SafetyIdentifier,
    ChatField::PromptCacheKey,
    ChatField::PromptCacheRetention,
    ChatField::Moderation,
    ChatField::Include,
    ChatField::Truncation,
    ChatField::MaxToolCalls,
];
/// Native fields of a part that belong to the item of its message, beside the content.
const ITEM_FIELDS: [&str; 3] = ["id", "phase", "status"];
/// Value of `include` that returns reasoning encrypted, so that it can be continued without storage
/// at the provider.
const ENCRYPTED_REASONING: &str = "reasoning.encrypted_content";

/// Writes the body of a request.
pub(super) fn write_body(request: &ChatRequest, is_stream: bool) -> Value {
    let (instructions, messages) = split_instructions(request);
    let mut input = Vec::new();
    messages.iter().for_each(|message| add_items(message, &mut input));
    // The interface stores by default; a caller's own `store` option overrides this below.
    let mut body = json!({"model": request.model, "input": input, "store": false});
    put_present(
        &mut body,
        [
            ("stream", is_stream.then_some(json!(true))),
            ("instructions", instructions.map(|text| json!(text))),
            ("max_output_tokens", request.max_tokens.map(|value| json!(value))),
            ("temperature", request.temperature.map(|value| json!(value))),
            ("top_p", request.top_p.map(|value| json!(value))),
            ("reasoning", reasoning_config(request)),
            ("tools", write_tools(request, |spec| write_tool(spec, request.door))),
            ("tool_choice", tool_choice(request)),
            ("text", text_config(request)),
            ("include", include_list(request)),
        ],
    );
    put_options(&mut body, request, &OPTIONS);
    put_extra_body(&mut body, request);
    body
}

/// Returns the instructions and the remaining messages: the request's system prompt, or else a
/// first system message of a single text.
fn split_instructions(request: &ChatRequest) -> (Option<&str>, &[ChatMessage]) {
    if let Some(system) = &request.system {
        return (Some(system), &request.messages);
    }
    // Only a single plain text fits the field without losing anything.
    if let [ChatMessage { role: MessageRole::System, parts, native: None, .. }, rest @ ..] =
        request.messages.as_slice()
        && let [MessagePart::Text(TextPart { text, .. })] = parts.as_slice()
    {
        return (Some(text), rest);
    }
    (None, &request.messages)
}

fn reasoning_config(request: &ChatRequest) -> Option<Value> {
    let mut reasoning = json!({});
    put_present(
        &mut reasoning,
        [
            ("effort", request.effort.as_ref().map(|effort| json!(effort))),
            ("summary", request.options.get(&ChatField::ReasoningSummary).cloned()),
        ],
    );
    (reasoning != json!({})).then_some(reasoning)
}

/// Asks for encrypted reasoning for callers of other interfaces, who do not know the option and use
/// tools. Models that do not reason reject it.
fn include_list(request: &ChatRequest) -> Option<Value> {
    let model = request.model.as_str();
    let is_reasoning = ["o1", "o3", "o4", "gpt-5", "gpt-6"].iter().any(|it| model.starts_with(it));
    let needs_reasoning =
        request.door != Some(ChatInterface::OpenAiResponses) && has_tools(request);
    (needs_reasoning && is_reasoning && !model.contains("chat"))
        .then(|| json!([ENCRYPTED_REASONING]))
}

fn text_config(request: &ChatRequest) -> Option<Value> {
    let format = match &request.schema {
        Some(schema) => {
            let mut format = schema_fields(request.schema_spec.as_ref(), schema);
            format["type"] = json!("json_schema");
            Some(format)
        }
        None => request.json_object.then(|| json!({"type": "json_object"})),
    };
    let mut text = json!({});
    let verbosity = request.options.get(&ChatField::Verbosity).cloned();
    put_present(&mut text, [("format", format), ("verbosity", verbosity)]);
    (text != json!({})).then_some(text)
}

/// A message under construction.
struct OpenMessage<'a> {
    message: &'a ChatMessage,
    /// The content blocks so far.
    content: Vec<Value>,
    /// Fields of the item beside its content.
    fields: Map<String, Value>,
}

impl OpenMessage<'_> {
    /// Writes the message if it has content, and begins an empty one.
    fn flush(&mut self, items: &mut Vec<Value>) {
        let content = std::mem::take(&mut self.content);
        let fields = std::mem::take(&mut self.fields);
        if content.is_empty() {
            return;
        }
        let role = match self.message.role {
            MessageRole::User => "user",
            MessageRole::Assistant => "assistant",
            MessageRole::System => "system",
            MessageRole::Developer => "developer",
        };
        let mut item = json!({"type": "message", "role": role, "content": content});
        NativeFields::write_into(
            self.message.native.as_ref(),
            ChatInterface::OpenAiResponses,
            &mut item,
        );
        if let Value::Object(item) = &mut item {
            item.extend(fields);
        }
        items.push(item);
    }
}

/// Writes a message as items in their order: tool calls, results and reasoning are items of their
/// own and split the content.
fn add_items(message: &ChatMessage, items: &mut Vec<Value>) {
    let mut open = OpenMessage { message, content: Vec::new(), fields: Map::new() };
    for part in &message.parts {
        if let Some(item) = part_item(part, message.role) {
            open.flush(items);
            items.push(item);
        } else if let Some(mut block) = content_block(part, message.role) {
            let fields = take_item_fields(&mut block);
            // Item fields mark the first part of a message: parts before it belong to another one.
            if !fields.is_empty() && !open.content.is_empty() {
                open.flush(items);
            }
            open.fields.extend(fields);
            open.content.push(block);
        }
    }
    open.flush(items);
}

fn take_item_fields(block: &mut Value) -> Map<String, Value> {
    let Value::Object(block) = block else { return Map::new() };
    let kind = block.get("type").and_then(Value::as_str);
    if !matches!(kind, Some("output_text" | "refusal")) {
        return Map::new();
    }
    // `read` stores an item's fields with its first part; here they return to the item.
    let taken = ITEM_FIELDS.iter().filter_map(|name| block.remove_entry(*name));
    taken.collect()
}

/// Writes a part that is an item of its own.
fn part_item(part: &MessagePart, role: MessageRole) -> Option<Value> {
    let (mut item, native) = match part {
        MessagePart::ToolCall(call) => {
            let item = json!({"type": "function_call", "call_id": call.id, "name": call.name,
                "arguments": call.arguments});
            (item, &call.native)
        }
        MessagePart::ToolResult(result) => (write_result(result), &result.native),
        MessagePart::Thinking(thinking) => {
            let mut summary = Vec::new();
            if !thinking.text.is_empty() {
                summary.push(json!({"type": "summary_text", "text": thinking.text}));
            }
            (json!({"type": "reasoning", "summary": summary}), &thinking.native)
        }
        MessagePart::Native(native) if !is_content_block(&native.block, role) => {
            return Some(native.block.clone());
        }
        _ => return None,
    };
    NativeFields::write_into(native.as_ref(), ChatInterface::OpenAiResponses, &mut item);
    Some(item)
}

/// Returns whether a native block belongs into the content of a message.
fn is_content_block(block: &Value, role: MessageRole) -> bool {
    let kind = block["type"].as_str().unwrap_or("");
    match role {
        MessageRole::Assistant => matches!(kind, "output_text" | "refusal"),
        _ => kind.starts_with("input_"),
    }
}

fn write_result(result: &ToolResultPart) -> Value {
    let output = match result.parts.as_slice() {
        [] => json!(result.text),
        parts => parts.iter().filter_map(|part| content_block(part, MessageRole::User)).collect(),
    };
    json!({"type": "function_call_output", "call_id": result.id, "output": output})
}

/// Writes a part of a message's content.
fn content_block(part: &MessagePart, role: MessageRole) -> Option<Value> {
    let kind = if role == MessageRole::Assistant { "output_text" } else { "input_text" };
    let (mut block, native) = match part {
        MessagePart::Text(TextPart { text, native, .. }) => {
            (json!({"type": kind, "text": text}), native)
        }
        MessagePart::Image(part) => {
            let url = data_url(&part.media_type, &part.data);
            (image_block(&url, part.detail.as_deref()), &part.native)
        }
        MessagePart::ImageUrl(part) => {
            (image_block(&part.url, part.detail.as_deref()), &part.native)
        }
        MessagePart::File(file) => (document_block(file), &file.native),
        MessagePart::Refusal(RefusalPart { text, native }) if role == MessageRole::Assistant => {
            (json!({"type": "refusal", "refusal": text}), native)
        }
        MessagePart::Refusal(RefusalPart { text, .. }) => {
            (json!({"type": kind, "text": text}), &None)
        }
        MessagePart::Native(native) => return Some(native.block.clone()),
        MessagePart::Audio(_)
        | MessagePart::ToolCall(_)
        | MessagePart::ToolResult(_)
        | MessagePart::Thinking(_) => {
            return None;
        }
    };
    NativeFields::write_into(native.as_ref(), ChatInterface::OpenAiResponses, &mut block);
    Some(block)
}

fn image_block(url: &str, detail: Option<&str>) -> Value {
    let mut image = json!({"type": "input_image", "image_url": url});
    put_present(&mut image, [("detail", detail.map(|detail| json!(detail)))]);
    image
}

fn document_block(file: &FilePart) -> Value {
    let mut document = match (&file.data, &file.text, &file.url) {
        (Some(data), ..) => {
            json!({"type": "input_file", "file_data": data_url(&file.media_type, data)})
        }
        (None, Some(text), _) => return json!({"type": "input_text", "text": text}),
        (None, None, url) => json!({"type": "input_file", "file_url": url}),
    };
    put_present(&mut document, [("filename", file.name.as_ref().map(|name| json!(name)))]);
    document
}

/// Writes a tool. This interface alone takes tools as strict by default, which callers of other
/// interfaces do not expect.
fn write_tool(tool: &ChatToolSpec, door: Option<ChatInterface>) -> Value {
    let default = (door != Some(ChatInterface::OpenAiResponses)).then_some(false);
    let mut object = json!({"type": "function", "name": tool.name, "parameters": tool.parameters});
    put_present(
        &mut object,
        [
            ("description", description_value(&tool.description)),
            ("strict", tool.strict.or(default).map(|strict| json!(strict))),
        ],
    );
    NativeFields::write_into(tool.native.as_ref(), ChatInterface::OpenAiResponses, &mut object);
    object
}

fn tool_choice(request: &ChatRequest) -> Option<Value> {
    match &request.tool_choice {
        _ if !has_tools(request) => None,
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Required => Some(json!("required")),
        ToolChoice::Named(name) => Some(json!({"type": "function", "name": name})),
    }
}
