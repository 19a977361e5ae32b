//! Writing requests for chat completions.

use convergio_domain::chat::{
    AudioPart, ChatField, ChatRequest, FilePart, Message, NativeFields, Part, RefusalPart, Role,
    SchemaSpec, TextPart, ThinkingPart, ToolCall, ToolChoice, ToolResultPart, ToolSpec,
};
use convergio_kernel_c::Platform;
use serde_json::{Value, json};

use super::super::{data_url, description, has_tools, put, put_extra, put_options, text, tools_of};
use super::INTERFACE;
use crate::model::provider_traits::{LimitField, ProviderTraits};

/// Options that go into the body under their own names.
const OPTIONS: [ChatField; 18] = [
    ChatField::TopK,
    ChatField::MinP,
    ChatField::ParallelToolCalls,
    ChatField::FrequencyPenalty,
    ChatField::PresencePenalty,
    ChatField::LogitBias,
    ChatField::ServiceTier,
    ChatField::Store,
    ChatField::Metadata,
    ChatField::User,
    ChatField::SafetyIdentifier,
    ChatField::PromptCacheKey,
    ChatField::PromptCacheRetention,
    ChatField::Verbosity,
    ChatField::WebSearchOptions,
    ChatField::Modalities,
    ChatField::Moderation,
    ChatField::Prediction,
];

/// Writes the body of a request, with the field names that the provider's traits give.
pub(super) fn body(platform: Platform, request: &ChatRequest, traits: &ProviderTraits) -> Value {
    let is_marked = traits.keeps.contains(&ChatField::CacheControl);
    let messages = messages(platform, request, is_marked);
    let mut body = json!({"model": request.model, "messages": messages});
    let limit = traits.limit_field.map_or_else(|| limit_name(platform), LimitField::name);
    let seed = traits.seed_field.as_deref().unwrap_or("seed");
    if traits.is_stream() {
        body["stream"] = json!(true);
        // Without it a stream ends without usage counts.
        body["stream_options"] = json!({"include_usage": true});
    }
    put(
        &mut body,
        [
            (limit, request.max_tokens.map(|value| json!(value))),
            ("temperature", request.temperature.map(|value| json!(value))),
            ("top_p", request.top_p.map(|value| json!(value))),
            (seed, request.seed.map(|value| json!(value))),
            ("reasoning_effort", request.effort.as_ref().map(|value| json!(value))),
            ("stop", (!request.stop.is_empty()).then(|| json!(request.stop))),
            ("tools", tools_of(request, |spec| tool(spec, is_marked))),
            ("tool_choice", choice(request)),
            ("response_format", format(request)),
        ],
    );
    put_options(&mut body, request, &OPTIONS);
    put_extra(&mut body, request);
    body
}

/// Returns the name of the answer's token limit. Every server for one's own machine knows
/// `max_tokens`; OpenAI's reasoning models accept only `max_completion_tokens`.
fn limit_name(platform: Platform) -> &'static str {
    match platform {
        Platform::CloudApi => "max_completion_tokens",
        _ => "max_tokens",
    }
}

/// The messages of the body, written one after the other.
struct Messages {
    platform: Platform,
    /// True if the provider accepts cache breakpoints (`cache_control`).
    is_marked: bool,
    /// The messages written so far.
    all: Vec<Value>,
    /// Pictures and files that tools returned. A tool message cannot hold them, and no other
    /// message may stand between two tool messages: they wait for the next message.
    pictures: Vec<Value>,
}

fn messages(platform: Platform, request: &ChatRequest, is_marked: bool) -> Vec<Value> {
    let mut messages = Messages { platform, is_marked, all: Vec::new(), pictures: Vec::new() };
    if let Some(system) = &request.system {
        messages.all.push(json!({"role": "system", "content": system}));
    }
    request.messages.iter().for_each(|message| messages.add(message));
    messages.show();
    messages.all
}

/// The content of a message apart from its tool results.
#[derive(Default)]
struct Turn {
    is_marked: bool,
    content: Vec<Value>,
    calls: Vec<Value>,
    thought: String,
    refusal: String,
}

impl Messages {
    fn turn(&self) -> Turn {
        Turn { is_marked: self.is_marked, ..Turn::default() }
    }

    /// Writes one message, preceded by its tool results.
    fn add(&mut self, message: &Message) {
        let mut turn = self.turn();
        for part in &message.parts {
            match part {
                Part::ToolResult(result) => self.add_result(result),
                part => turn.add(part),
            }
        }
        turn.drop_blanks();
        // A message of tool results alone is written already; nothing is left of it.
        let has_results = message.parts.iter().any(|part| matches!(part, Part::ToolResult(_)));
        let is_silent = message.parts.is_empty() && message.native.is_none();
        if turn.is_empty() && (has_results || is_silent) {
            return;
        }
        if message.role == Role::User {
            // The user's own message can carry them: they come before its content.
            let pictures = std::mem::take(&mut self.pictures);
            turn.content.splice(0..0, pictures);
        } else {
            self.show();
        }
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
            // Chat templates of local models do not know `developer`.
            Role::Developer if self.platform == Platform::CloudApi => "developer",
            Role::System | Role::Developer => "system",
        };
        let mut object = json!({"role": role, "content": self.content(turn.content)});
        put(
            &mut object,
            [
                ("name", message.name.as_ref().map(|name| json!(name))),
                ("reasoning_content", (!turn.thought.is_empty()).then(|| json!(turn.thought))),
                ("refusal", (!turn.refusal.is_empty()).then(|| json!(turn.refusal))),
                ("tool_calls", (!turn.calls.is_empty()).then(|| json!(turn.calls))),
            ],
        );
        NativeFields::write(message.native.as_ref(), INTERFACE, &mut object);
        self.all.push(object);
    }

    /// Writes one tool result as a message of its own.
    fn add_result(&mut self, result: &ToolResultPart) {
        let is_text = |part: &&Part| matches!(part, Part::Text(_));
        let (texts, others): (Vec<_>, Vec<_>) = result.parts.iter().partition(is_text);
        let has_mark = |part: &&Part| self.is_marked && part.cache_control().is_some();
        let content = match texts.as_slice() {
            [] => json!(result.all_text()),
            // A list is needed only where a part carries a cache breakpoint.
            [part] if !has_mark(part) => json!(result.all_text()),
            texts => {
                let mut turn = self.turn();
                texts.iter().for_each(|part| turn.add(part));
                self.content(turn.content)
            }
        };
        let mut turn = self.turn();
        others.into_iter().for_each(|part| turn.add(part));
        self.pictures.append(&mut turn.content);
        let mut object = json!({"role": "tool", "tool_call_id": result.id, "content": content});
        NativeFields::write(result.native.as_ref(), INTERFACE, &mut object);
        self.all.push(object);
    }

    /// Writes the pending pictures as a message of the user.
    fn show(&mut self) {
        if !self.pictures.is_empty() {
            let pictures = std::mem::take(&mut self.pictures);
            self.all.push(json!({"role": "user", "content": pictures}));
        }
    }

    /// Returns the content of a message: text alone as a string, because not every server accepts a
    /// list of parts.
    fn content(&self, parts: Vec<Value>) -> Value {
        let is_plain = |part: &Value| {
            part["type"] == "text" && part.as_object().is_some_and(|fields| fields.len() == 2)
        };
        let is_plain = parts.iter().all(is_plain);
        match parts.as_slice() {
            // Absent content, as beside tool calls, is `null`.
            [] => Value::Null,
            [part] if is_plain => part["text"].clone(),
            // Joined for servers on one's own machine, whose chat templates may know strings only.
            parts if is_plain && self.platform != Platform::CloudApi => {
                let texts: Vec<&str> = parts.iter().map(|part| text(part, "text")).collect();
                json!(texts.join("\n"))
            }
            _ => Value::Array(parts),
        }
    }
}

impl Turn {
    fn is_empty(&self) -> bool {
        let Self { is_marked: _, content, calls, thought, refusal } = self;
        content.is_empty() && calls.is_empty() && thought.is_empty() && refusal.is_empty()
    }

    /// Drops empty texts beside other content; a message that has nothing else keeps one.
    fn drop_blanks(&mut self) {
        let is_blank = |block: &Value| *block == json!({"type": "text", "text": ""});
        if self.calls.is_empty() && self.content.iter().all(is_blank) {
            self.content.truncate(1);
        } else {
            self.content.retain(|block| !is_blank(block));
        }
    }

    fn add(&mut self, part: &Part) {
        match part {
            Part::ToolCall(call) => self.calls.push(call_of(call)),
            Part::Thinking(thinking) if thinking.native.is_none() => {
                self.thought.push_str(&thinking.text);
            }
            Part::Refusal(RefusalPart { text, .. }) => self.refusal.push_str(text),
            Part::Native(native) if is_call(&native.block) => self.calls.push(native.block.clone()),
            part => self.content.extend(block(part).map(|mut block| {
                let mark = part.cache_control().filter(|_| self.is_marked);
                put(&mut block, [("cache_control", mark.cloned())]);
                block
            })),
        }
    }
}

/// Returns whether a native block is a call of a custom tool.
fn is_call(block: &Value) -> bool {
    block["custom"].is_object()
}

fn call_of(call: &ToolCall) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    let mut object = json!({"id": call.id, "type": "function", "function": function});
    NativeFields::write(call.native.as_ref(), INTERFACE, &mut object);
    object
}

/// Writes a part of the content.
fn block(part: &Part) -> Option<Value> {
    let (mut block, native) = match part {
        Part::Text(TextPart { text, native, .. }) => {
            (json!({"type": "text", "text": text}), native)
        }
        Part::Image(part) => {
            let url = data_url(&part.media_type, &part.data);
            (image(&url, part.detail.as_deref()), &part.native)
        }
        Part::ImageUrl(part) => (image(&part.url, part.detail.as_deref()), &part.native),
        Part::File(file) => (document(file), &file.native),
        Part::Audio(AudioPart { format, data, native }) => (
            json!({"type": "input_audio", "input_audio": {"data": data, "format": format}}),
            native,
        ),
        Part::Thinking(ThinkingPart { text, native, .. }) => {
            let thought = json!([{"type": "text", "text": text}]);
            (json!({"type": "thinking", "thinking": thought}), native)
        }
        Part::Native(native) => return Some(native.block.clone()),
        Part::ToolCall(_) | Part::ToolResult(_) | Part::Refusal(_) => return None,
    };
    NativeFields::write(native.as_ref(), INTERFACE, &mut block);
    Some(block)
}

fn image(url: &str, detail: Option<&str>) -> Value {
    let mut image = json!({"url": url});
    put(&mut image, [("detail", detail.map(|detail| json!(detail)))]);
    json!({"type": "image_url", "image_url": image})
}

fn document(file: &FilePart) -> Value {
    // Only base64 documents are files here; a document given as text is a text.
    let Some(data) = &file.data else {
        return json!({"type": "text", "text": file.text.as_deref().unwrap_or("")});
    };
    let mut document = json!({"file_data": data_url(&file.media_type, data)});
    put(&mut document, [("filename", file.name.as_ref().map(|name| json!(name)))]);
    json!({"type": "file", "file": document})
}

fn tool(tool: &ToolSpec, is_marked: bool) -> Value {
    let mut function = json!({"name": tool.name, "parameters": tool.parameters});
    put(
        &mut function,
        [
            ("description", description(&tool.description)),
            ("strict", tool.strict.map(|strict| json!(strict))),
        ],
    );
    let mut object = json!({"type": "function", "function": function});
    put(&mut object, [("cache_control", tool.cache_control.clone().filter(|_| is_marked))]);
    NativeFields::write(tool.native.as_ref(), INTERFACE, &mut object);
    object
}

fn choice(request: &ChatRequest) -> Option<Value> {
    match &request.tool_choice {
        _ if !has_tools(request) => None,
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Required => Some(json!("required")),
        ToolChoice::Named(name) => Some(json!({"type": "function", "function": {"name": name}})),
    }
}

fn format(request: &ChatRequest) -> Option<Value> {
    let Some(schema) = &request.schema else {
        return request.json_object.then(|| json!({"type": "json_object"}));
    };
    let spec = schema_fields(request.schema_spec.as_ref(), schema);
    Some(json!({"type": "json_schema", "json_schema": spec}))
}

/// Returns a schema with its name, description and strictness, as both of OpenAI's interfaces take
/// it. The name is mandatory: `answer` unless the caller gave one.
pub(in crate::model::dialect) fn schema_fields(spec: Option<&SchemaSpec>, schema: &Value) -> Value {
    let name = spec.and_then(|spec| spec.name.as_deref()).unwrap_or("answer");
    let mut fields = json!({"name": name, "schema": schema});
    put(
        &mut fields,
        [
            (
                "description",
                spec.and_then(|spec| spec.description.as_ref()).map(|text| json!(text)),
            ),
            ("strict", spec.and_then(|spec| spec.strict).map(|strict| json!(strict))),
        ],
    );
    fields
}
