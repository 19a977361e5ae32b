//! OpenAI's chat completions, as OpenAI, Azure, llama.cpp, MLX and many others serve them.

use convergio_domain::chat::{ChatRequest, Message, Part, Role, ToolCall, ToolChoice};
use convergio_domain::metering::Usage;
use convergio_kernel_c::Platform;
use serde_json::{Value, json};

use super::{Dialect, ReadError, encoded, refuse_errors, text, vectors};
use crate::model::answer::{Answer, UsageReader};
use crate::model::usage;

/// Chat completions.
pub(super) struct Chat {
    platform: Platform,
    /// The version that Azure's classic URLs name.
    api_version: Option<String>,
}

impl Chat {
    pub(super) fn new(platform: Platform, api_version: Option<String>) -> Self {
        Self { platform, api_version }
    }

    fn path(&self, model: &str, end: &str) -> String {
        match &self.api_version {
            None => format!("/{end}"),
            Some(version) => {
                let (model, version) = (encoded(model), encoded(version));
                format!("/deployments/{model}/{end}?api-version={version}")
            }
        }
    }

    /// `max_tokens` is the only name that every server for one's own machine knows,
    /// `max_completion_tokens` the only one that OpenAI's reasoning models accept.
    fn limit_name(&self) -> &'static str {
        match self.platform {
            Platform::CloudApi => "max_completion_tokens",
            _ => "max_tokens",
        }
    }

    fn take(&self, piece: &Value, part: &str, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(piece)?;
        let choice = &piece["choices"][0];
        let said = &choice[part];
        answer.say(text(said, "content"));
        for name in ["reasoning_content", "reasoning"] {
            answer.think(text(said, name));
        }
        if !text(said, "refusal").is_empty() {
            answer.refuse();
        }
        for (place, call) in said["tool_calls"].as_array().into_iter().flatten().enumerate() {
            let index = call["index"].as_u64().and_then(|index| usize::try_from(index).ok());
            take_call(call, answer.tool(index.unwrap_or(place)));
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            answer.finish(known_finish(finish), finish);
        }
        answer.name(&piece["model"]);
        answer.count(&piece["usage"]);
        Ok(())
    }
}

fn take_call(call: &Value, tool: &mut ToolCall) {
    let function = &call["function"];
    for (piece, whole) in
        [(text(call, "id"), &mut tool.id), (text(function, "name"), &mut tool.name)]
    {
        if whole.is_empty() {
            whole.push_str(piece);
        }
    }
    tool.arguments.push_str(text(function, "arguments"));
}

fn known_finish(said: &str) -> Option<&'static str> {
    match said {
        "stop" => Some("stop"),
        "length" => Some("length"),
        "tool_calls" | "function_call" => Some("tool_calls"),
        "content_filter" => Some("content_filter"),
        _ => None,
    }
}

impl Dialect for Chat {
    fn chat_path(&self, model: &str) -> String {
        self.path(model, "chat/completions")
    }

    fn write(&self, request: &ChatRequest) -> Value {
        let mut messages = Vec::new();
        if let Some(system) = &request.system {
            messages.push(json!({"role": "system", "content": system}));
        }
        messages.extend(request.messages.iter().flat_map(written));
        let mut body = json!({
            "model": request.model,
            "messages": messages,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if let Some(limit) = request.max_tokens {
            body[self.limit_name()] = json!(limit);
        }
        let options = [
            ("temperature", request.temperature.map(|value| json!(value))),
            ("top_p", request.top_p.map(|value| json!(value))),
            ("seed", request.seed.map(|value| json!(value))),
            ("reasoning_effort", request.effort.as_ref().map(|value| json!(value))),
            ("stop", (!request.stop.is_empty()).then(|| json!(request.stop))),
            ("tools", tools(request)),
            ("tool_choice", choice(request)),
            ("response_format", request.schema.as_ref().map(format)),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        body
    }

    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        self.take(piece, "delta", answer)
    }

    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(body)?;
        if !body["choices"][0].is_object() {
            return Err(ReadError::Malformed("it has no choice"));
        }
        self.take(body, "message", answer)?;
        // It is whole, so it has a reason to have stopped.
        if !answer.is_finished() {
            answer.finish(Some("stop"), "stop");
        }
        Ok(())
    }

    fn usage(&self) -> UsageReader {
        usage::from_openai
    }

    fn embed(&self, model: &str, texts: &[String]) -> Option<(String, Value)> {
        Some((self.path(model, "embeddings"), embeddings_body(model, texts)))
    }

    fn read_embeddings(&self, body: &Value) -> Option<(Vec<Vec<f32>>, Usage)> {
        read_embeddings(body)
    }

    fn audio_path(&self, model: &str, end: &str) -> Option<String> {
        Some(self.path(model, &format!("audio/{end}")))
    }
}

pub(super) fn read_embeddings(body: &Value) -> Option<(Vec<Vec<f32>>, Usage)> {
    let vectors = vectors(body["data"].as_array()?.iter().map(|entry| &entry["embedding"]))?;
    Some((vectors, usage::from_openai(&body["usage"]).unwrap_or_default()))
}

pub(super) fn embeddings_body(model: &str, texts: &[String]) -> Value {
    json!({"model": model, "input": texts, "encoding_format": "float"})
}

/// A turn as messages: each tool's answer is one of its own.
fn written(message: &Message) -> Vec<Value> {
    let mut messages = Vec::new();
    let mut content = Vec::new();
    let mut calls = Vec::new();
    for part in &message.parts {
        match part {
            Part::Text { text } => content.push(json!({"type": "text", "text": text})),
            Part::Image { media_type, data } => {
                let url = format!("data:{media_type};base64,{data}");
                content.push(json!({"type": "image_url", "image_url": {"url": url}}));
            }
            Part::ImageUrl { url } => {
                content.push(json!({"type": "image_url", "image_url": {"url": url}}));
            }
            Part::ToolCall(call) => calls.push(json!({"id": call.id, "type": "function",
                "function": {"name": call.name, "arguments": call.arguments}})),
            Part::ToolResult { id, text, .. } => {
                messages.push(json!({"role": "tool", "tool_call_id": id, "content": text}));
            }
            Part::Thinking { .. } => {}
        }
    }
    let role = match message.role {
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    if !content.is_empty() || !calls.is_empty() {
        let mut said = json!({"role": role, "content": content_of(content)});
        if !calls.is_empty() {
            said["tool_calls"] = json!(calls);
        }
        messages.push(said);
    }
    messages
}

/// Text alone travels as text: not every server takes parts.
fn content_of(parts: Vec<Value>) -> Value {
    if parts.is_empty() {
        return Value::Null;
    }
    if !parts.iter().all(|part| part["type"] == "text") {
        return Value::Array(parts);
    }
    let texts: Vec<&str> = parts.iter().map(|part| text(part, "text")).collect();
    json!(texts.join("\n"))
}

fn tools(request: &ChatRequest) -> Option<Value> {
    let tools = request.tools.iter().map(|tool| {
        json!({"type": "function", "function": {"name": tool.name,
            "description": tool.description, "parameters": tool.parameters}})
    });
    (!request.tools.is_empty()).then(|| tools.collect())
}

fn choice(request: &ChatRequest) -> Option<Value> {
    match &request.tool_choice {
        _ if request.tools.is_empty() => None,
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Required => Some(json!("required")),
        ToolChoice::Named(name) => Some(json!({"type": "function", "function": {"name": name}})),
    }
}

fn format(schema: &Value) -> Value {
    let schema = json!({"name": "answer", "strict": is_strict(schema), "schema": schema});
    json!({"type": "json_schema", "json_schema": schema})
}

/// Whether OpenAI would take the schema as a strict one: every object closed, every field required.
pub(super) fn is_strict(schema: &Value) -> bool {
    let fields = schema["properties"].as_object();
    let is_closed = fields.is_none_or(|fields| {
        let required = schema["required"].as_array().map_or(0, Vec::len);
        schema["additionalProperties"] == json!(false) && required == fields.len()
    });
    let mut inner = match schema {
        Value::Object(parts) => parts.values().collect::<Vec<_>>(),
        Value::Array(parts) => parts.iter().collect(),
        _ => Vec::new(),
    };
    inner.retain(|part| part.is_object() || part.is_array());
    is_closed && inner.into_iter().all(is_strict)
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::ChatRequest;
    use convergio_kernel_c::Platform;
    use serde_json::{Value, json};

    use super::{Chat, Dialect, is_strict};

    fn request() -> ChatRequest {
        ChatRequest { max_tokens: Some(7), ..ChatRequest::prompt("m", "p \"quoted\"\n") }
    }

    #[test]
    fn the_body_is_small_and_its_keys_are_in_order() {
        let body = Chat::new(Platform::LlamaCpp, None).write(&request()).to_string();
        let expected = r#"{"max_tokens":7,"messages":[{"content":"p \"quoted\"\n","role":"user"}],"#
            .to_owned()
            + r#""model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(body, expected);
    }

    #[test]
    fn everything_that_is_asked_stands_in_the_body() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let request = ChatRequest {
            system: Some("s".into()),
            temperature: Some(0.5),
            schema: Some(schema.clone()),
            ..request()
        };
        let body: Value = Chat::new(Platform::CloudApi, None).write(&request);
        assert_eq!(body["messages"][0], json!({"role": "system", "content": "s"}));
        assert_eq!(body["temperature"], json!(0.5));
        assert_eq!(
            (&body["max_completion_tokens"], &body["max_tokens"]),
            (&json!(7), &Value::Null)
        );
        let format = &body["response_format"]["json_schema"];
        assert_eq!((&format["schema"], &format["strict"]), (&schema, &json!(false)));
    }

    #[test]
    fn only_closed_schemas_are_strict() {
        let open = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let closed = json!({"type": "object", "properties": {"a": {"type": "string"}},
            "required": ["a"], "additionalProperties": false});
        let nested = |inner: &Value| json!({"type": "array", "items": inner});
        assert!(!is_strict(&open) && !is_strict(&nested(&open)));
        assert!(is_strict(&closed) && is_strict(&nested(&closed)) && is_strict(&json!({})));
    }

    #[test]
    fn a_classic_url_names_deployment_and_version() {
        let chat = Chat::new(Platform::CloudApi, Some("2024-10-21".into()));
        let expected = "/deployments/my-gpt/chat/completions?api-version=2024-10-21";
        assert_eq!(chat.chat_path("my-gpt"), expected);
    }
}
