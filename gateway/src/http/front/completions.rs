//! The door of OpenAI's chat completions.

use convergio_domain::chat::{ChatReply, ChatRequest, Message, Part, Role, ToolCall, ToolChoice};
use convergio_domain::metering::{Meter, Usage};
use serde_json::{Value, json};

use super::fields::{self, MESSAGES_LIMIT};
use super::refusal::Refusal;
use super::turn::CallFailure;
use super::{Door, Event};

/// What is not available: several answers at once, and what only a model's maker could tell.
const UNSUPPORTED: [&str; 5] = ["functions", "logprobs", "top_logprobs", "audio", "prediction"];

/// A call of chat completions.
pub(super) struct Completions {
    model: String,
    streams: bool,
    counts: bool,
    run: String,
    created: u64,
}

impl Completions {
    fn id(&self) -> String {
        format!("chatcmpl-{}", self.run)
    }

    fn chunk(&self, delta: &Value, finish: Option<&str>) -> Event {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        Event::data(&self.frame(&json!([choice]), &Value::Null))
    }

    fn frame(&self, choices: &Value, usage: &Value) -> Value {
        let mut frame = json!({"id": self.id(), "object": "chat.completion.chunk",
            "created": self.created, "model": self.model, "choices": choices});
        if self.counts {
            frame["usage"] = usage.clone();
        }
        frame
    }
}

impl Door for Completions {
    fn read(body: &Value) -> Result<(ChatRequest, Self), Refusal> {
        fields::refuse_unsupported(body, &UNSUPPORTED)?;
        if !body["n"].is_null() && body["n"] != 1 {
            return Err(Refusal::invalid("n", "must be 1"));
        }
        let mut request = ChatRequest {
            model: fields::text(body, "model")?,
            tools: fields::tools(body, |tool, path| {
                fields::tool(&tool["function"], "parameters", path)
            })?,
            tool_choice: choice(&body["tool_choice"])?,
            max_tokens: fields::tokens(body, &["max_completion_tokens", "max_tokens"])?,
            temperature: fields::number(body, "temperature", 2.0)?,
            top_p: fields::number(body, "top_p", 1.0)?,
            stop: fields::texts(body, "stop")?,
            seed: body["seed"].as_i64(),
            schema: schema(&body["response_format"])?,
            effort: body["reasoning_effort"].as_str().map(str::to_owned),
            ..ChatRequest::default()
        };
        for (place, message) in fields::list(body, "messages", MESSAGES_LIMIT)?.iter().enumerate() {
            take(message, &format!("messages[{place}]"), &mut request)?;
        }
        if request.messages.is_empty() {
            return Err(Refusal::invalid("messages", "has nothing that a user said"));
        }
        let door = Self {
            model: request.model.clone(),
            streams: fields::flag(body, "stream")?,
            counts: fields::flag(&body["stream_options"], "include_usage")?,
            run: String::new(),
            created: u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0),
        };
        Ok((request, door))
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn whole(&self, run: &str, reply: &ChatReply) -> Value {
        let content = if reply.text.is_empty() && !reply.tool_calls.is_empty() {
            Value::Null
        } else {
            json!(reply.text)
        };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !reply.tool_calls.is_empty() {
            message["tool_calls"] = reply.tool_calls.iter().map(call).collect();
        }
        json!({"id": format!("chatcmpl-{run}"), "object": "chat.completion",
            "created": self.created, "model": named(reply, &self.model),
            "choices": [{"index": 0, "message": message, "logprobs": null,
                "finish_reason": finish(reply)}],
            "usage": usage(&reply.usage)})
    }

    fn begin(&mut self, run: &str) -> Vec<Event> {
        run.clone_into(&mut self.run);
        vec![self.chunk(&json!({"role": "assistant", "content": ""}), None)]
    }

    fn piece(&mut self, text: &str) -> Vec<Event> {
        vec![self.chunk(&json!({"content": text}), None)]
    }

    fn end(&mut self, reply: &ChatReply) -> Vec<Event> {
        let mut events = Vec::new();
        for (index, tool) in reply.tool_calls.iter().enumerate() {
            let mut call = call(tool);
            call["index"] = json!(index);
            events.push(self.chunk(&json!({"tool_calls": [call]}), None));
        }
        events.push(self.chunk(&json!({}), Some(finish(reply))));
        if self.counts {
            events.push(Event::data(&self.frame(&json!([]), &usage(&reply.usage))));
        }
        events.push(Event { name: None, data: "[DONE]".to_owned() });
        events
    }

    fn broken(&self, failure: &CallFailure) -> Event {
        Event::data(&error_of(&failure.code, &failure.text, None))
    }

    fn error(refusal: &Refusal) -> Value {
        error_of(&refusal.code, &refusal.message, refusal.param.as_deref())
    }
}

/// An error as OpenAI's SDKs read it.
pub(super) fn error_of(code: &str, message: &str, param: Option<&str>) -> Value {
    let (kind, known) = match code {
        "provider.context_exceeded" => ("invalid_request_error", "context_length_exceeded"),
        "provider.content_filtered" => ("invalid_request_error", "content_filter"),
        "provider.rate_limited" => ("rate_limit_error", "rate_limit_exceeded"),
        "budget.exceeded" => ("insufficient_quota", "budget.exceeded"),
        code if code.starts_with("byok.") => ("authentication_error", code),
        code if code.starts_with("request.") => ("invalid_request_error", code),
        code => ("api_error", code),
    };
    json!({"error": {"message": message, "type": kind, "param": param, "code": known}})
}

fn finish(reply: &ChatReply) -> &'static str {
    match reply.finish.as_str() {
        "length" => "length",
        "tool_calls" => "tool_calls",
        _ => "stop",
    }
}

pub(super) fn named(reply: &ChatReply, asked: &str) -> String {
    if reply.model.is_empty() { asked.to_owned() } else { reply.model.clone() }
}

fn call(call: &ToolCall) -> Value {
    json!({"id": call.id, "type": "function",
        "function": {"name": call.name, "arguments": call.arguments}})
}

/// The classes, put together again as OpenAI counts them.
fn usage(usage: &Usage) -> Value {
    let count = |meter| usage.0.get(&meter).copied().unwrap_or(0);
    json!({"prompt_tokens": usage.tokens_in(), "completion_tokens": usage.tokens_out(),
        "total_tokens": usage.tokens(),
        "prompt_tokens_details": {"cached_tokens": count(Meter::InCacheRead),
            "audio_tokens": count(Meter::InAudio)},
        "completion_tokens_details": {"reasoning_tokens": count(Meter::OutReasoning),
            "audio_tokens": count(Meter::OutAudio), "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0}})
}

/// A schema by the format of the answer.
fn schema(format: &Value) -> Result<Option<Value>, Refusal> {
    match format["type"].as_str() {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!({"type": "object"}))),
        Some("json_schema") if format["json_schema"]["schema"].is_object() => {
            Ok(Some(format["json_schema"]["schema"].clone()))
        }
        _ => Err(Refusal::invalid(
            "response_format",
            "must be of type text, json_object, or json_schema with json_schema.schema",
        )),
    }
}

fn choice(choice: &Value) -> Result<ToolChoice, Refusal> {
    match (choice.as_str(), choice["function"]["name"].as_str()) {
        (None, None) if choice.is_null() => Ok(ToolChoice::Auto),
        (Some("auto"), _) => Ok(ToolChoice::Auto),
        (Some("none"), _) => Ok(ToolChoice::None),
        (Some("required"), _) => Ok(ToolChoice::Required),
        (_, Some(name)) => Ok(ToolChoice::Named(name.to_owned())),
        _ => Err(Refusal::invalid("tool_choice", "must be auto, none, required or a function")),
    }
}

/// Takes a message in.
fn take(message: &Value, path: &str, request: &mut ChatRequest) -> Result<(), Refusal> {
    let parts = content(&message["content"], path)?;
    let role = match message["role"].as_str() {
        Some("system" | "developer") => {
            for part in &parts {
                if let Part::Text { text } = part {
                    fields::add_system(&mut request.system, text);
                }
            }
            return Ok(());
        }
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => {
            let id = fields::text(message, "tool_call_id")?;
            let texts = parts.iter().filter_map(|part| match part {
                Part::Text { text } => Some(text.as_str()),
                _ => None,
            });
            let text = texts.collect::<Vec<_>>().join("\n");
            let name = tool_name(request, &id);
            let part = Part::ToolResult { id, name, text, is_error: false };
            push(request, Role::User, vec![part]);
            return Ok(());
        }
        _ => {
            let message = "must be system, developer, user, assistant or tool";
            return Err(Refusal::invalid(&format!("{path}.role"), message));
        }
    };
    let mut parts = parts;
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let function = &call["function"];
        let (id, name) = (text(&call["id"]), text(&function["name"]));
        parts.push(Part::ToolCall(ToolCall { id, name, arguments: text(&function["arguments"]) }));
    }
    if !parts.is_empty() {
        push(request, role, parts);
    }
    Ok(())
}

/// Adds a turn; the results of tools that were asked for together stay together.
pub(super) fn push(request: &mut ChatRequest, role: Role, parts: Vec<Part>) {
    let is_result = |part: &Part| matches!(part, Part::ToolResult { .. });
    match request.messages.last_mut() {
        Some(last)
            if last.role == role
                && last.parts.iter().all(is_result)
                && parts.iter().all(is_result) =>
        {
            last.parts.extend(parts);
        }
        _ => request.messages.push(Message { role, parts }),
    }
}

/// The name of the tool that a call asked for.
pub(super) fn tool_name(request: &ChatRequest, id: &str) -> String {
    let parts = request.messages.iter().rev().flat_map(|message| &message.parts);
    let mut calls = parts.filter_map(|part| match part {
        Part::ToolCall(call) => Some(call),
        _ => None,
    });
    calls.find(|call| call.id == id).map(|call| call.name.clone()).unwrap_or_default()
}

fn content(content: &Value, path: &str) -> Result<Vec<Part>, Refusal> {
    let path = format!("{path}.content");
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![Part::Text { text: text.clone() }]),
        Value::Array(list) => list.iter().map(|part| part_of(part, &path)).collect(),
        _ => Err(Refusal::invalid(&path, "must be text or a list of parts")),
    }
}

fn part_of(part: &Value, path: &str) -> Result<Part, Refusal> {
    match (part["type"].as_str(), &part["text"], &part["image_url"]["url"]) {
        (Some("text"), Value::String(text), _) => Ok(Part::Text { text: text.clone() }),
        (Some("image_url"), _, Value::String(url)) => fields::image(url, path),
        (kind, ..) => {
            let kind = kind.unwrap_or("?");
            Err(Refusal::invalid(path, format!("a part of type `{kind}` is not available here")))
        }
    }
}
