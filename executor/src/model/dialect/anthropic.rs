//! Anthropic's messages, in both versions of the interface.

use convergio_domain::chat::{ChatRequest, Message, Part, Role, ToolChoice};
use serde_json::{Value, json};

use super::{Dialect, ReadError, arguments, refuse_errors, text};
use crate::model::answer::{ANSWER_TOOL, Answer, UsageReader};
use crate::model::usage;

/// The first version. It takes sampling parameters, which later ones refuse.
const FIRST: &str = "2023-06-01";
/// The interface demands a limit: this one, when nobody named one.
const MAX_TOKENS: u32 = 4096;

/// Messages.
pub(super) struct Messages {
    version: String,
}

impl Messages {
    pub(super) fn new(version: &str) -> Self {
        Self { version: version.to_owned() }
    }
}

impl Dialect for Messages {
    fn chat_path(&self, _model: &str) -> String {
        "/messages".to_owned()
    }

    fn write(&self, request: &ChatRequest) -> Value {
        let messages: Vec<Value> = request.messages.iter().map(written).collect();
        let limit = request.max_tokens.unwrap_or(MAX_TOKENS);
        let mut body = json!({"model": request.model, "messages": messages, "max_tokens": limit,
            "stream": true});
        let samples = self.version == FIRST;
        let (tools, choice) = tools(request);
        let options = [
            ("system", request.system.as_ref().map(|value| json!(value))),
            ("temperature", request.temperature.filter(|_| samples).map(|v| json!(v.min(1.0)))),
            ("top_p", request.top_p.filter(|_| samples).map(|value| json!(value))),
            ("stop_sequences", (!request.stop.is_empty()).then(|| json!(request.stop))),
            ("tools", tools),
            ("tool_choice", choice),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        body
    }

    fn unknown(&self) -> &'static [&'static str] {
        if self.version == FIRST {
            &["effort", "seed"]
        } else {
            &["effort", "seed", "temperature", "top_p"]
        }
    }

    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(piece)?;
        match text(piece, "type") {
            "message_start" => {
                answer.name(&piece["message"]["model"]);
                answer.count_more(&piece["message"]["usage"]);
            }
            "content_block_start" => begin_block(&piece["content_block"], answer),
            "content_block_delta" => read_delta(&piece["delta"], answer),
            "message_delta" => {
                // Its counts are cumulative: they replace what was told before.
                answer.count_more(&piece["usage"]);
                if let Some(reason) = piece["delta"]["stop_reason"].as_str() {
                    answer.finish(known_stop(reason), reason);
                }
            }
            "message_stop" => answer.end(),
            _ => {}
        }
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(body)?;
        let blocks = body["content"].as_array().ok_or(ReadError::Malformed("it has no content"))?;
        for block in blocks {
            begin_block(block, answer);
            if block["type"] == "tool_use" {
                let last = answer.tools().saturating_sub(1);
                answer.tool(last).arguments = block["input"].to_string();
            }
        }
        answer.name(&body["model"]);
        answer.count_more(&body["usage"]);
        let reason = text(body, "stop_reason");
        answer.finish(known_stop(reason), reason);
        Ok(())
    }

    fn usage(&self) -> UsageReader {
        usage::from_anthropic
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("anthropic-version", self.version.clone())]
    }
}

/// A block as it begins; what it holds already is taken in.
fn begin_block(block: &Value, answer: &mut Answer) {
    match text(block, "type") {
        "text" => answer.say(text(block, "text")),
        "thinking" => {
            answer.think(text(block, "thinking"));
            answer.sign(text(block, "signature"));
        }
        "tool_use" => {
            let tool = answer.tool(answer.tools());
            tool.id = text(block, "id").to_owned();
            tool.name = text(block, "name").to_owned();
        }
        _ => {}
    }
}

fn read_delta(delta: &Value, answer: &mut Answer) {
    match text(delta, "type") {
        "text_delta" => answer.say(text(delta, "text")),
        "thinking_delta" => answer.think(text(delta, "thinking")),
        "signature_delta" => answer.sign(text(delta, "signature")),
        "input_json_delta" => {
            // Blocks come one after the other: it belongs to the last tool.
            let last = answer.tools().saturating_sub(1);
            answer.tool(last).arguments.push_str(text(delta, "partial_json"));
        }
        _ => {}
    }
}

fn known_stop(reason: &str) -> Option<&'static str> {
    match reason {
        "end_turn" | "stop_sequence" => Some("stop"),
        "max_tokens" | "model_context_window_exceeded" => Some("length"),
        "tool_use" => Some("tool_calls"),
        "refusal" => Some("content_filter"),
        _ => None,
    }
}

fn written(message: &Message) -> Value {
    let role = match message.role {
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    let blocks: Vec<Value> = message.parts.iter().map(block).collect();
    match message.parts.as_slice() {
        [Part::Text { text }] => json!({"role": role, "content": text}),
        _ => json!({"role": role, "content": blocks}),
    }
}

fn block(part: &Part) -> Value {
    match part {
        Part::Text { text } => json!({"type": "text", "text": text}),
        Part::Image { media_type, data } => json!({"type": "image",
            "source": {"type": "base64", "media_type": media_type, "data": data}}),
        Part::ImageUrl { url } => {
            json!({"type": "image", "source": {"type": "url", "url": url}})
        }
        Part::ToolCall(call) => json!({"type": "tool_use", "id": call.id, "name": call.name,
            "input": arguments(&call.arguments)}),
        Part::ToolResult { id, text, is_error, .. } => json!({"type": "tool_result",
            "tool_use_id": id, "content": text, "is_error": is_error}),
        Part::Thinking { text, signature } => {
            json!({"type": "thinking", "thinking": text, "signature": signature})
        }
    }
}

/// The tools and the choice among them. A schema becomes a tool that must be called: its arguments
/// are the answer.
fn tools(request: &ChatRequest) -> (Option<Value>, Option<Value>) {
    if let (Some(schema), true) = (&request.schema, request.tools.is_empty()) {
        let tool = json!({"name": ANSWER_TOOL, "description": "Gives the answer.",
            "input_schema": schema});
        return (Some(json!([tool])), Some(json!({"type": "tool", "name": ANSWER_TOOL})));
    }
    if request.tools.is_empty() {
        return (None, None);
    }
    let tools = request.tools.iter().map(|tool| {
        json!({"name": tool.name, "description": tool.description,
            "input_schema": tool.parameters})
    });
    let choice = match &request.tool_choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!({"type": "none"})),
        ToolChoice::Required => Some(json!({"type": "any"})),
        ToolChoice::Named(name) => Some(json!({"type": "tool", "name": name})),
    };
    (Some(tools.collect()), choice)
}
