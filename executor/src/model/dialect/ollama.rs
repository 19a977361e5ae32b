//! Ollama's own interface, which refuses a prompt that is too long in place of cutting it.

use convergio_domain::chat::{ChatRequest, Message, Part, Role};
use convergio_domain::metering::{Meter, Usage};
use serde_json::{Value, json};

use super::{Dialect, ReadError, arguments, refuse_errors, text, vectors};
use crate::model::answer::{Answer, UsageReader};
use crate::model::usage;

/// Counts and times of the last line.
const COUNTS: [&str; 6] = [
    "prompt_eval_count",
    "eval_count",
    "total_duration",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
];

/// `/api/chat`.
pub(super) struct Native;

impl Dialect for Native {
    fn chat_path(&self, _model: &str) -> String {
        "/api/chat".to_owned()
    }

    fn write(&self, request: &ChatRequest) -> Value {
        let mut messages = Vec::new();
        if let Some(system) = &request.system {
            messages.push(json!({"role": "system", "content": system}));
        }
        messages.extend(request.messages.iter().flat_map(written));
        let mut body = json!({"model": request.model, "messages": messages, "stream": true,
            "truncate": false});
        let mut sampling = json!({});
        let options = [
            ("num_predict", request.max_tokens.map(|value| json!(value))),
            ("temperature", request.temperature.map(|value| json!(value))),
            ("top_p", request.top_p.map(|value| json!(value))),
            ("seed", request.seed.map(|value| json!(value))),
            ("stop", (!request.stop.is_empty()).then(|| json!(request.stop))),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                sampling[name] = value;
            }
        }
        body["options"] = sampling;
        if let Some(schema) = &request.schema {
            body["format"] = schema.clone();
        }
        if !request.tools.is_empty() {
            let tools = request.tools.iter().map(|tool| {
                json!({"type": "function", "function": {"name": tool.name,
                    "description": tool.description, "parameters": tool.parameters}})
            });
            body["tools"] = tools.collect();
        }
        body
    }

    fn unknown(&self) -> &'static [&'static str] {
        &["effort", "tool_choice"]
    }

    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(piece)?;
        if !piece["message"].is_object() && piece["done"] != json!(true) {
            return Err(ReadError::Malformed("a line has no message"));
        }
        let message = &piece["message"];
        answer.think(text(message, "thinking"));
        answer.say(text(message, "content"));
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            take_call(call, answer);
        }
        answer.name(&piece["model"]);
        if piece["done"] == json!(true) {
            let told = COUNTS.iter().filter_map(|name| Some((*name, piece.get(*name)?.clone())));
            answer.count(&told.map(|(name, value)| (name.to_owned(), value)).collect());
            let reason = text(piece, "done_reason");
            let known = match reason {
                "stop" | "" => Some("stop"),
                "length" => Some("length"),
                _ => None,
            };
            answer.finish(known, reason);
            answer.end();
        }
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        self.read_piece(body, answer)
    }

    fn usage(&self) -> UsageReader {
        usage::from_ollama
    }

    fn embed(&self, model: &str, texts: &[String]) -> Option<(String, Value)> {
        let body = json!({"model": model, "input": texts, "truncate": false});
        Some(("/api/embed".to_owned(), body))
    }

    fn read_embeddings(&self, body: &Value) -> Option<(Vec<Vec<f32>>, Usage)> {
        let vectors = vectors(body["embeddings"].as_array()?.iter())?;
        let tokens = body["prompt_eval_count"].as_u64().unwrap_or(0);
        Some((vectors, Usage([(Meter::InFresh, tokens)].into())))
    }
}

fn take_call(call: &Value, answer: &mut Answer) {
    let place = answer.tools();
    let tool = answer.tool(place);
    let function = &call["function"];
    tool.name = text(function, "name").to_owned();
    let id = call["id"].as_str().map(str::to_owned);
    tool.id = id.unwrap_or_else(|| format!("call_{place}_{}", tool.name));
    let given = &function["arguments"];
    tool.arguments = if given.is_object() { given.to_string() } else { "{}".to_owned() };
}

/// A turn as messages: each tool's answer is one of its own.
fn written(message: &Message) -> Vec<Value> {
    let role = match message.role {
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    let mut messages = Vec::new();
    let (mut said, mut images, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    let mut thought = String::new();
    for part in &message.parts {
        match part {
            Part::Text { text } => said.push(text.as_str()),
            Part::Image { data, .. } => images.push(json!(data)),
            // It fetches nothing: the reader is told that there was a picture.
            Part::ImageUrl { url } => said.push(url.as_str()),
            Part::ToolCall(call) => calls.push(json!({"function": {"name": call.name,
                "arguments": arguments(&call.arguments)}})),
            Part::ToolResult { name, text, .. } => {
                messages.push(json!({"role": "tool", "tool_name": name, "content": text}));
            }
            Part::Thinking { text, .. } => thought.push_str(text),
        }
    }
    if !said.is_empty() || !images.is_empty() || !calls.is_empty() {
        let mut turn = json!({"role": role, "content": said.join("\n")});
        let extras =
            [("images", json!(images)), ("tool_calls", json!(calls)), ("thinking", json!(thought))];
        for (name, value) in extras {
            if value != json!([]) && value != json!("") {
                turn[name] = value;
            }
        }
        messages.push(turn);
    }
    messages
}
