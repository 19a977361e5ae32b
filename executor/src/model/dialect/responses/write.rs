//! Writing requests for OpenAI's responses.

use convergio_domain::chat::{
    ChatField, ChatRequest, FilePart, Interface, Message, NativeFields, Part, RefusalPart, Role,
    TextPart, ToolChoice, ToolResultPart, ToolSpec,
};
use serde_json::{Map, Value, json};

use super::super::openai::schema_fields;
use super::super::{data_url, description, has_tools, put, put_extra, put_options, tools_of};
use super::INTERFACE;

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
const SEALED_REASONING: &str = "reasoning.encrypted_content";

/// Writes the body of a request.
pub(super) fn body(request: &ChatRequest, is_stream: bool) -> Value {
    let (instructions, messages) = instructions(request);
    let mut input = Vec::new();
    messages.iter().for_each(|message| add_items(message, &mut input));
    // The interface stores by default; a caller's own `store` option overrides this below.
    let mut body = json!({"model": request.model, "input": input, "store": false});
    put(
        &mut body,
        [
            ("stream", is_stream.then_some(json!(true))),
            ("instructions", instructions.map(|text| json!(text))),
            ("max_output_tokens", request.max_tokens.map(|value| json!(value))),
            ("temperature", request.temperature.map(|value| json!(value))),
            ("top_p", request.top_p.map(|value| json!(value))),
            ("reasoning", reasoning(request)),
            ("tools", tools_of(request, |spec| tool(spec, request.door))),
            ("tool_choice", choice(request)),
            ("text", text_of(request)),
            ("include", include(request)),
        ],
    );
    put_options(&mut body, request, &OPTIONS);
    put_extra(&mut body, request);
    body
}

/// Returns the instructions and the remaining messages: the request's system prompt, or else a
/// first system message of a single text.
fn instructions(request: &ChatRequest) -> (Option<&str>, &[Message]) {
    if let Some(system) = &request.system {
        return (Some(system), &request.messages);
    }
    // Only a single plain text fits the field without losing anything.
    if let [Message { role: Role::System, parts, native: None, .. }, rest @ ..] =
        request.messages.as_slice()
        && let [Part::Text(TextPart { text, .. })] = parts.as_slice()
    {
        return (Some(text), rest);
    }
    (None, &request.messages)
}

fn reasoning(request: &ChatRequest) -> Option<Value> {
    let mut reasoning = json!({});
    put(
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
fn include(request: &ChatRequest) -> Option<Value> {
    let model = request.model.as_str();
    let is_reasoning = ["o1", "o3", "o4", "gpt-5", "gpt-6"].iter().any(|it| model.starts_with(it));
    let goes_on = request.door != Some(INTERFACE) && has_tools(request);
    (goes_on && is_reasoning && !model.contains("chat")).then(|| json!([SEALED_REASONING]))
}

fn text_of(request: &ChatRequest) -> Option<Value> {
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
    put(&mut text, [("format", format), ("verbosity", verbosity)]);
    (text != json!({})).then_some(text)
}

/// A message under construction.
struct Open<'a> {
    message: &'a Message,
    /// The content blocks so far.
    content: Vec<Value>,
    /// Fields of the item beside its content.
    fields: Map<String, Value>,
}

impl Open<'_> {
    /// Writes the message if it has content, and begins an empty one.
    fn end(&mut self, items: &mut Vec<Value>) {
        let content = std::mem::take(&mut self.content);
        let fields = std::mem::take(&mut self.fields);
        if content.is_empty() {
            return;
        }
        let role = match self.message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::System => "system",
            Role::Developer => "developer",
        };
        let mut item = json!({"type": "message", "role": role, "content": content});
        NativeFields::write(self.message.native.as_ref(), INTERFACE, &mut item);
        if let Value::Object(item) = &mut item {
            item.extend(fields);
        }
        items.push(item);
    }
}

/// Writes a message as items in their order: tool calls, results and reasoning are items of their
/// own and split the content.
fn add_items(message: &Message, items: &mut Vec<Value>) {
    let mut open = Open { message, content: Vec::new(), fields: Map::new() };
    for part in &message.parts {
        if let Some(item) = item(part, message.role) {
            open.end(items);
            items.push(item);
        } else if let Some(mut block) = content(part, message.role) {
            let fields = take_item_fields(&mut block);
            // Item fields mark the first part of a message: parts before it belong to another one.
            if !fields.is_empty() && !open.content.is_empty() {
                open.end(items);
            }
            open.fields.extend(fields);
            open.content.push(block);
        }
    }
    open.end(items);
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
fn item(part: &Part, role: Role) -> Option<Value> {
    let (mut item, native) = match part {
        Part::ToolCall(call) => {
            let item = json!({"type": "function_call", "call_id": call.id, "name": call.name,
                "arguments": call.arguments});
            (item, &call.native)
        }
        Part::ToolResult(result) => (result_of(result), &result.native),
        Part::Thinking(thinking) => {
            let mut summary = Vec::new();
            if !thinking.text.is_empty() {
                summary.push(json!({"type": "summary_text", "text": thinking.text}));
            }
            (json!({"type": "reasoning", "summary": summary}), &thinking.native)
        }
        Part::Native(native) if !is_content(&native.block, role) => {
            return Some(native.block.clone());
        }
        _ => return None,
    };
    NativeFields::write(native.as_ref(), INTERFACE, &mut item);
    Some(item)
}

/// Returns whether a native block belongs into the content of a message.
fn is_content(block: &Value, role: Role) -> bool {
    let kind = block["type"].as_str().unwrap_or("");
    match role {
        Role::Assistant => matches!(kind, "output_text" | "refusal"),
        _ => kind.starts_with("input_"),
    }
}

fn result_of(result: &ToolResultPart) -> Value {
    let output = match result.parts.as_slice() {
        [] => json!(result.text),
        parts => parts.iter().filter_map(|part| content(part, Role::User)).collect(),
    };
    json!({"type": "function_call_output", "call_id": result.id, "output": output})
}

/// Writes a part of a message's content.
fn content(part: &Part, role: Role) -> Option<Value> {
    let kind = if role == Role::Assistant { "output_text" } else { "input_text" };
    let (mut block, native) = match part {
        Part::Text(TextPart { text, native, .. }) => (json!({"type": kind, "text": text}), native),
        Part::Image(part) => {
            let url = data_url(&part.media_type, &part.data);
            (image(&url, part.detail.as_deref()), &part.native)
        }
        Part::ImageUrl(part) => (image(&part.url, part.detail.as_deref()), &part.native),
        Part::File(file) => (document(file), &file.native),
        Part::Refusal(RefusalPart { text, native }) if role == Role::Assistant => {
            (json!({"type": "refusal", "refusal": text}), native)
        }
        Part::Refusal(RefusalPart { text, .. }) => (json!({"type": kind, "text": text}), &None),
        Part::Native(native) => return Some(native.block.clone()),
        Part::Audio(_) | Part::ToolCall(_) | Part::ToolResult(_) | Part::Thinking(_) => {
            return None;
        }
    };
    NativeFields::write(native.as_ref(), INTERFACE, &mut block);
    Some(block)
}

fn image(url: &str, detail: Option<&str>) -> Value {
    let mut image = json!({"type": "input_image", "image_url": url});
    put(&mut image, [("detail", detail.map(|detail| json!(detail)))]);
    image
}

fn document(file: &FilePart) -> Value {
    let mut document = match (&file.data, &file.text, &file.url) {
        (Some(data), ..) => {
            json!({"type": "input_file", "file_data": data_url(&file.media_type, data)})
        }
        (None, Some(text), _) => return json!({"type": "input_text", "text": text}),
        (None, None, url) => json!({"type": "input_file", "file_url": url}),
    };
    put(&mut document, [("filename", file.name.as_ref().map(|name| json!(name)))]);
    document
}

/// Writes a tool. This interface alone takes tools as strict by default, which callers of other
/// interfaces do not expect.
fn tool(tool: &ToolSpec, door: Option<Interface>) -> Value {
    let default = (door != Some(INTERFACE)).then_some(false);
    let mut object = json!({"type": "function", "name": tool.name, "parameters": tool.parameters});
    put(
        &mut object,
        [
            ("description", description(&tool.description)),
            ("strict", tool.strict.or(default).map(|strict| json!(strict))),
        ],
    );
    NativeFields::write(tool.native.as_ref(), INTERFACE, &mut object);
    object
}

fn choice(request: &ChatRequest) -> Option<Value> {
    match &request.tool_choice {
        _ if !has_tools(request) => None,
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Required => Some(json!("required")),
        ToolChoice::Named(name) => Some(json!({"type": "function", "name": name})),
    }
}
