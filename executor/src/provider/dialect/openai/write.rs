//! Writing requests for chat completions.

use convergio_domain::chat::{
    AudioPart, ChatField, ChatInterface, ChatMessage, ChatRequest, ChatToolSpec, FilePart,
    MessagePart, MessageRole, NativeFields, RefusalPart, SchemaSpec, TextPart, ThinkingPart,
    ToolCall, ToolChoice, ToolResultPart,
};
use convergio_kernel_c::KernelPlatform;
use serde_json::{Value, json};

use crate::provider::dialect::json_fields::{
    data_url, description_value, has_tools, put_extra_body, put_options, put_present, text_field,
    write_tools,
};
use crate::provider::provider_traits::{LimitField, ProviderTraits};

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
pub(super) fn write_body(
    platform: KernelPlatform,
    request: &ChatRequest,
    traits: &ProviderTraits,
) -> Value {
    let is_marked = traits.keeps.contains(&ChatField::CacheControl);
    let messages = write_messages(platform, request, is_marked);
    let mut body = json!({"model": request.model, "messages": messages});
    let limit = traits.limit_field.map_or_else(|| limit_name(platform), LimitField::name);
    let seed = traits.seed_field.as_deref().unwrap_or("seed");
    if traits.is_stream() {
        body["stream"] = json!(true);
        // Without it a stream ends without usage counts.
        body["stream_options"] = json!({"include_usage": true});
    }
    put_present(
        &mut body,
        [
            (limit, request.max_tokens.map(|value| json!(value))),
            ("temperature", request.temperature.map(|value| json!(value))),
            ("top_p", request.top_p.map(|value| json!(value))),
            (seed, request.seed.map(|value| json!(value))),
            ("reasoning_effort", request.effort.as_ref().map(|value| json!(value))),
            ("stop", (!request.stop.is_empty()).then(|| json!(request.stop))),
            ("tools", write_tools(request, |spec| write_tool(spec, is_marked))),
            ("tool_choice", tool_choice(request)),
            ("response_format", response_format(request)),
        ],
    );
    put_options(&mut body, request, &OPTIONS);
    put_extra_body(&mut body, request);
    body
}

/// Returns the name of the answer's token limit. Every server for one's own machine knows
/// `max_tokens`; OpenAI's reasoning models accept only `max_completion_tokens`.
fn limit_name(platform: KernelPlatform) -> &'static str {
    match platform {
        KernelPlatform::CloudApi => "max_completion_tokens",
        _ => "max_tokens",
    }
}

/// The messages of the body, written one after the other.
struct ChatMessageWriter {
    platform: KernelPlatform,
    /// True if the provider accepts cache breakpoints (`cache_control`).
    keeps_cache_marks: bool,
    /// The messages written so far.
    written: Vec<Value>,
    /// Pictures and files that tools returned. A tool message cannot hold them, and no other
    /// message may stand between two tool messages: they wait for the next message.
    pending_pictures: Vec<Value>,
}

fn write_messages(platform: KernelPlatform, request: &ChatRequest, is_marked: bool) -> Vec<Value> {
    let mut messages = ChatMessageWriter {
        platform,
        keeps_cache_marks: is_marked,
        written: Vec::new(),
        pending_pictures: Vec::new(),
    };
    if let Some(system) = &request.system {
        messages.written.push(json!({"role": "system", "content": system}));
    }
    request.messages.iter().for_each(|message| messages.add_message(message));
    messages.flush_pictures();
    messages.written
}

/// The content of a message apart from its tool results.
#[derive(Default)]
struct ChatTurn {
    keeps_cache_marks: bool,
    content: Vec<Value>,
    calls: Vec<Value>,
    thought: String,
    refusal: String,
}

impl ChatMessageWriter {
    fn empty_turn(&self) -> ChatTurn {
        ChatTurn { keeps_cache_marks: self.keeps_cache_marks, ..ChatTurn::default() }
    }

    /// Writes one message, preceded by its tool results.
    fn add_message(&mut self, message: &ChatMessage) {
        let mut turn = self.empty_turn();
        for part in &message.parts {
            match part {
                MessagePart::ToolResult(result) => self.add_tool_result(result),
                part => turn.add_part(part),
            }
        }
        turn.drop_blanks();
        // A message of tool results alone is written already; nothing is left of it.
        let has_results =
            message.parts.iter().any(|part| matches!(part, MessagePart::ToolResult(_)));
        let is_silent = message.parts.is_empty() && message.native.is_none();
        if turn.is_empty() && (has_results || is_silent) {
            return;
        }
        if message.role == MessageRole::User {
            // The user's own message can carry them: they come before its content.
            let pictures = std::mem::take(&mut self.pending_pictures);
            turn.content.splice(0..0, pictures);
        } else {
            self.flush_pictures();
        }
        let role = match message.role {
            MessageRole::User => "user",
            MessageRole::Assistant => "assistant",
            // Chat templates of local models do not know `developer`.
            MessageRole::Developer if self.platform == KernelPlatform::CloudApi => "developer",
            MessageRole::System | MessageRole::Developer => "system",
        };
        let mut object = json!({"role": role, "content": self.content_value(turn.content)});
        put_present(
            &mut object,
            [
                ("name", message.name.as_ref().map(|name| json!(name))),
                ("reasoning_content", (!turn.thought.is_empty()).then(|| json!(turn.thought))),
                ("refusal", (!turn.refusal.is_empty()).then(|| json!(turn.refusal))),
                ("tool_calls", (!turn.calls.is_empty()).then(|| json!(turn.calls))),
            ],
        );
        NativeFields::write_into(message.native.as_ref(), ChatInterface::OpenAiChat, &mut object);
        self.written.push(object);
    }

    /// Writes one tool result as a message of its own.
    fn add_tool_result(&mut self, result: &ToolResultPart) {
        let is_text = |part: &&MessagePart| matches!(part, MessagePart::Text(_));
        let (texts, others): (Vec<_>, Vec<_>) = result.parts.iter().partition(is_text);
        let has_fields = |part: &MessagePart| {
            let native = match part {
                MessagePart::Text(text) => text.native.as_ref(),
                _ => None,
            };
            native.is_some_and(|native| native.interface == ChatInterface::OpenAiChat)
                || self.keeps_cache_marks && part.cache_control().is_some()
        };
        let content = match texts.as_slice() {
            [] => json!(result.all_text()),
            // A list is needed only where a part carries more than its text.
            [part] if !has_fields(part) => json!(result.all_text()),
            texts => {
                let mut turn = self.empty_turn();
                texts.iter().for_each(|part| turn.add_part(part));
                self.content_value(turn.content)
            }
        };
        let mut turn = self.empty_turn();
        others.into_iter().for_each(|part| turn.add_part(part));
        self.pending_pictures.append(&mut turn.content);
        let mut object = json!({"role": "tool", "tool_call_id": result.id, "content": content});
        NativeFields::write_into(result.native.as_ref(), ChatInterface::OpenAiChat, &mut object);
        self.written.push(object);
    }

    /// Writes the pending pictures as a message of the user.
    fn flush_pictures(&mut self) {
        if !self.pending_pictures.is_empty() {
            let pictures = std::mem::take(&mut self.pending_pictures);
            self.written.push(json!({"role": "user", "content": pictures}));
        }
    }

    /// Returns the content of a message: text alone as a string, because not every server accepts a
    /// list of parts.
    fn content_value(&self, parts: Vec<Value>) -> Value {
        let is_plain = |part: &Value| {
            part["type"] == "text" && part.as_object().is_some_and(|fields| fields.len() == 2)
        };
        let is_plain = parts.iter().all(is_plain);
        match parts.as_slice() {
            // Absent content, as beside tool calls, is `null`.
            [] => Value::Null,
            [part] if is_plain => part["text"].clone(),
            // Joined for servers on one's own machine, whose chat templates may know strings only.
            parts if is_plain && self.platform != KernelPlatform::CloudApi => {
                let texts: Vec<&str> = parts.iter().map(|part| text_field(part, "text")).collect();
                json!(texts.join("\n"))
            }
            _ => Value::Array(parts),
        }
    }
}

impl ChatTurn {
    fn is_empty(&self) -> bool {
        let Self { keeps_cache_marks: _, content, calls, thought, refusal } = self;
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

    fn add_part(&mut self, part: &MessagePart) {
        match part {
            MessagePart::ToolCall(call) => self.calls.push(write_call(call)),
            MessagePart::Thinking(thinking) if thinking.native.is_none() => {
                self.thought.push_str(&thinking.text);
            }
            MessagePart::Refusal(RefusalPart { text, .. }) => self.refusal.push_str(text),
            MessagePart::Native(native) if is_custom_call(&native.block) => {
                self.calls.push(native.block.clone());
            }
            part => self.content.extend(content_block(part).map(|mut block| {
                let mark = part.cache_control().filter(|_| self.keeps_cache_marks);
                put_present(&mut block, [("cache_control", mark.cloned())]);
                block
            })),
        }
    }
}

/// Returns whether a native block is a call of a custom tool.
fn is_custom_call(block: &Value) -> bool {
    block["custom"].is_object()
}

fn write_call(call: &ToolCall) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    let mut object = json!({"id": call.id, "type": "function", "function": function});
    NativeFields::write_into(call.native.as_ref(), ChatInterface::OpenAiChat, &mut object);
    object
}

/// Writes a part of the content.
fn content_block(part: &MessagePart) -> Option<Value> {
    let (mut block, native) = match part {
        MessagePart::Text(TextPart { text, native, .. }) => {
            (json!({"type": "text", "text": text}), native)
        }
        MessagePart::Image(part) => {
            let url = data_url(&part.media_type, &part.data);
            (image_block(&url, part.detail.as_deref()), &part.native)
        }
        MessagePart::ImageUrl(part) => {
            (image_block(&part.url, part.detail.as_deref()), &part.native)
        }
        MessagePart::File(file) => (document_block(file), &file.native),
        MessagePart::Audio(AudioPart { format, data, native }) => (
            json!({"type": "input_audio", "input_audio": {"data": data, "format": format}}),
            native,
        ),
        MessagePart::Thinking(ThinkingPart { text, native, .. }) => {
            let thought = json!([{"type": "text", "text": text}]);
            (json!({"type": "thinking", "thinking": thought}), native)
        }
        MessagePart::Native(native) => return Some(native.block.clone()),
        MessagePart::ToolCall(_) | MessagePart::ToolResult(_) | MessagePart::Refusal(_) => {
            return None;
        }
    };
    NativeFields::write_into(native.as_ref(), ChatInterface::OpenAiChat, &mut block);
    Some(block)
}

fn image_block(url: &str, detail: Option<&str>) -> Value {
    let mut image = json!({"url": url});
    put_present(&mut image, [("detail", detail.map(|detail| json!(detail)))]);
    json!({"type": "image_url", "image_url": image})
}

fn document_block(file: &FilePart) -> Value {
    // Only base64 documents are files here; a document given as text is a text.
    let Some(data) = &file.data else {
        return json!({"type": "text", "text": file.text.as_deref().unwrap_or("")});
    };
    let mut document = json!({"file_data": data_url(&file.media_type, data)});
    put_present(&mut document, [("filename", file.name.as_ref().map(|name| json!(name)))]);
    json!({"type": "file", "file": document})
}

fn write_tool(tool: &ChatToolSpec, is_marked: bool) -> Value {
    let mut function = json!({"name": tool.name, "parameters": tool.parameters});
    put_present(
        &mut function,
        [
            ("description", description_value(&tool.description)),
            ("strict", tool.strict.map(|strict| json!(strict))),
        ],
    );
    let mut object = json!({"type": "function", "function": function});
    put_present(&mut object, [("cache_control", tool.cache_control.clone().filter(|_| is_marked))]);
    NativeFields::write_into(tool.native.as_ref(), ChatInterface::OpenAiChat, &mut object);
    object
}

fn tool_choice(request: &ChatRequest) -> Option<Value> {
    match &request.tool_choice {
        _ if !has_tools(request) => None,
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Required => Some(json!("required")),
        ToolChoice::Named(name) => Some(json!({"type": "function", "function": {"name": name}})),
    }
}

fn response_format(request: &ChatRequest) -> Option<Value> {
    let Some(schema) = &request.schema else {
        return request.json_object.then(|| json!({"type": "json_object"}));
    };
    let spec = schema_fields(request.schema_spec.as_ref(), schema);
    Some(json!({"type": "json_schema", "json_schema": spec}))
}

/// Returns a schema with its name, description and strictness, as both of OpenAI's interfaces take
/// it. The name is mandatory: `answer` unless the caller gave one.
pub(in crate::provider::dialect) fn schema_fields(
    spec: Option<&SchemaSpec>,
    schema: &Value,
) -> Value {
    let name = spec.and_then(|spec| spec.name.as_deref()).unwrap_or("answer");
    let mut fields = json!({"name": name, "schema": schema});
    put_present(
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
