//! The door of Anthropic's messages.

use convergio_domain::chat::{ChatReply, ChatRequest, Message, Part, Role, ToolCall, ToolChoice};
use convergio_domain::json::read_json;
use convergio_domain::metering::{Meter, Usage};
use serde_json::{Value, json};

use super::completions::named;
use super::fields::{self, MESSAGES_LIMIT};
use super::refusal::Refusal;
use super::turn::CallFailure;
use super::{Door, Event};

/// A call of messages.
pub(super) struct Messages {
    model: String,
    streams: bool,
    /// Whether the block of text has begun.
    has_text: bool,
}

impl Door for Messages {
    fn read(body: &Value) -> Result<(ChatRequest, Self), Refusal> {
        fields::refuse_unsupported(body, &["container", "mcp_servers"])?;
        let mut request = ChatRequest {
            model: fields::text(body, "model")?,
            system: system(&body["system"])?,
            tools: fields::tools(body, |tool, path| match tool["type"].as_str() {
                None | Some("custom") => fields::tool(tool, "input_schema", path),
                Some(_) => Err(Refusal::invalid(path, "only your own tools are available here")),
            })?,
            tool_choice: choice(&body["tool_choice"])?,
            max_tokens: fields::tokens(body, &["max_tokens"])?,
            temperature: fields::number(body, "temperature", 1.0)?,
            top_p: fields::number(body, "top_p", 1.0)?,
            stop: fields::texts(body, "stop_sequences")?,
            ..ChatRequest::default()
        };
        if request.max_tokens.is_none() {
            return Err(Refusal::invalid("max_tokens", "missing"));
        }
        for (place, message) in fields::list(body, "messages", MESSAGES_LIMIT)?.iter().enumerate() {
            let message = read_message(message, &format!("messages[{place}]"), &request)?;
            request.messages.push(message);
        }
        let (model, streams) = (request.model.clone(), fields::flag(body, "stream")?);
        Ok((request, Self { model, streams, has_text: false }))
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn whole(&self, run: &str, reply: &ChatReply) -> Value {
        let mut content = Vec::new();
        if !reply.signature.is_empty() {
            content.push(json!({"type": "thinking", "thinking": reply.thinking,
                "signature": reply.signature}));
        }
        if !reply.text.is_empty() {
            content.push(json!({"type": "text", "text": reply.text, "citations": null}));
        }
        content.extend(reply.tool_calls.iter().map(|call| block(call, input(call))));
        json!({"id": format!("msg_{run}"), "type": "message", "role": "assistant",
            "model": named(reply, &self.model), "content": content, "stop_reason": stop(reply),
            "stop_sequence": null, "usage": usage(&reply.usage)})
    }

    fn begin(&mut self, run: &str) -> Vec<Event> {
        let message = json!({"id": format!("msg_{run}"), "type": "message", "role": "assistant",
            "model": self.model, "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": usage(&Usage::default())});
        vec![event("message_start", json!({"message": message}))]
    }

    fn piece(&mut self, text: &str) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.has_text {
            self.has_text = true;
            let block = json!({"type": "text", "text": "", "citations": null});
            let begun = json!({"index": 0, "content_block": block});
            events.push(event("content_block_start", begun));
        }
        let delta = json!({"index": 0, "delta": {"type": "text_delta", "text": text}});
        events.push(event("content_block_delta", delta));
        events
    }

    fn end(&mut self, reply: &ChatReply) -> Vec<Event> {
        let mut events = Vec::new();
        if self.has_text {
            events.push(event("content_block_stop", json!({"index": 0})));
        }
        for (place, call) in reply.tool_calls.iter().enumerate() {
            let index = place + usize::from(self.has_text);
            let begun = json!({"index": index, "content_block": block(call, json!({}))});
            events.push(event("content_block_start", begun));
            let delta =
                json!({"type": "input_json_delta", "partial_json": input(call).to_string()});
            events.push(event("content_block_delta", json!({"index": index, "delta": delta})));
            events.push(event("content_block_stop", json!({"index": index})));
        }
        let delta = json!({"stop_reason": stop(reply), "stop_sequence": null});
        let counted = json!({"delta": delta, "usage": usage(&reply.usage)});
        events.push(event("message_delta", counted));
        events.push(event("message_stop", json!({})));
        events
    }

    fn broken(&self, failure: &CallFailure) -> Event {
        Event::named("error", &error_of(&failure.code, &failure.text))
    }

    fn error(refusal: &Refusal) -> Value {
        error_of(&refusal.code, &refusal.message)
    }
}

fn event(name: &'static str, mut data: Value) -> Event {
    data["type"] = json!(name);
    Event::named(name, &data)
}

fn error_of(code: &str, message: &str) -> Value {
    let kind = match code {
        "byok.missing_key" | "byok.bad_key" => "authentication_error",
        "budget.exceeded" => "billing_error",
        "privacy.cloud_denied" => "permission_error",
        "not_found" => "not_found_error",
        "request.too_large" => "request_too_large",
        "provider.rate_limited" => "rate_limit_error",
        "provider.timeout" => "timeout_error",
        "provider.unavailable" => "overloaded_error",
        code if code.starts_with("request.") => "invalid_request_error",
        "provider.context_exceeded" | "provider.content_filtered" => "invalid_request_error",
        _ => "api_error",
    };
    let message = format!("{code}: {message}");
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": null})
}

fn stop(reply: &ChatReply) -> &'static str {
    match reply.finish.as_str() {
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        _ => "end_turn",
    }
}

fn block(call: &ToolCall, input: Value) -> Value {
    json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input})
}

/// A tool's arguments as a value; what is none travels as what it is.
fn input(call: &ToolCall) -> Value {
    let value = read_json(call.arguments.as_bytes()).ok().filter(Value::is_object);
    value.unwrap_or_else(|| json!({"arguments": call.arguments}))
}

/// The classes as Anthropic counts them: fresh input excludes what the cache read and wrote.
fn usage(usage: &Usage) -> Value {
    let count = |meter| usage.0.get(&meter).copied().unwrap_or(0);
    let (short, long) = (count(Meter::InCacheWrite5m), count(Meter::InCacheWrite1h));
    let read = count(Meter::InCacheRead);
    json!({"input_tokens": usage.tokens_in() - read - short - long,
        "cache_read_input_tokens": read, "cache_creation_input_tokens": short + long,
        "output_tokens": usage.tokens_out()})
}

fn system(system: &Value) -> Result<Option<String>, Refusal> {
    match system {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Array(blocks) => {
            let text = |block: &Value| block["text"].as_str().map(str::to_owned);
            let texts: Option<Vec<String>> = blocks.iter().map(text).collect();
            let texts = texts.ok_or_else(|| Refusal::invalid("system", "must be text blocks"))?;
            Ok(Some(texts.join("\n\n")))
        }
        _ => Err(Refusal::invalid("system", "must be text or a list of text blocks")),
    }
}

fn choice(choice: &Value) -> Result<ToolChoice, Refusal> {
    match (choice["type"].as_str(), choice["name"].as_str()) {
        (None, _) if choice.is_null() => Ok(ToolChoice::Auto),
        (Some("auto"), _) => Ok(ToolChoice::Auto),
        (Some("none"), _) => Ok(ToolChoice::None),
        (Some("any"), _) => Ok(ToolChoice::Required),
        (Some("tool"), Some(name)) => Ok(ToolChoice::Named(name.to_owned())),
        _ => Err(Refusal::invalid("tool_choice", "must have type auto, any, none or tool")),
    }
}

fn read_message(message: &Value, path: &str, asked: &ChatRequest) -> Result<Message, Refusal> {
    let role = match message["role"].as_str() {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => return Err(Refusal::invalid(&format!("{path}.role"), "must be user or assistant")),
    };
    let path = format!("{path}.content");
    let parts = match &message["content"] {
        Value::String(text) => vec![Part::Text { text: text.clone() }],
        Value::Array(blocks) => {
            blocks.iter().map(|block| part(block, &path, asked)).collect::<Result<_, _>>()?
        }
        _ => return Err(Refusal::invalid(&path, "must be text or a list of blocks")),
    };
    Ok(Message { role, parts })
}

fn part(block: &Value, path: &str, asked: &ChatRequest) -> Result<Part, Refusal> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    match block["type"].as_str() {
        Some("text") => Ok(Part::Text { text: text(&block["text"]) }),
        Some("image") => image(&block["source"], path),
        Some("tool_use") => Ok(Part::ToolCall(ToolCall {
            id: text(&block["id"]),
            name: text(&block["name"]),
            arguments: block["input"].to_string(),
        })),
        Some("tool_result") => {
            let id = text(&block["tool_use_id"]);
            Ok(Part::ToolResult {
                name: super::completions::tool_name(asked, &id),
                id,
                text: result(&block["content"]),
                is_error: block["is_error"] == json!(true),
            })
        }
        Some("thinking") => Ok(Part::Thinking {
            text: text(&block["thinking"]),
            signature: text(&block["signature"]),
        }),
        kind => {
            let kind = kind.unwrap_or("?");
            Err(Refusal::invalid(path, format!("a block of type `{kind}` is not available here")))
        }
    }
}

fn image(source: &Value, path: &str) -> Result<Part, Refusal> {
    match (&source["data"], &source["media_type"], &source["url"]) {
        (Value::String(data), Value::String(media_type), _) => {
            Ok(Part::Image { media_type: media_type.clone(), data: data.clone() })
        }
        (_, _, Value::String(url)) => fields::image(url, path),
        _ => Err(Refusal::invalid(path, "an image's source must be base64 or a URL")),
    }
}

/// What a tool answered, as text.
fn result(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts = blocks.iter().filter_map(|block| block["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}
