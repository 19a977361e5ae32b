//! Google's interactions, the younger interface of Gemini, which stores nothing when it is asked
//! not to.

use convergio_domain::chat::{ChatRequest, Message, Part, Role, ToolChoice};
use convergio_domain::metering::Usage;
use serde_json::{Value, json};

use super::{Dialect, ReadError, arguments, gemini, refuse_errors, refused, text};
use crate::model::answer::{Answer, UsageReader};
use crate::model::usage;

/// Interactions.
pub(super) struct Interactions;

impl Dialect for Interactions {
    fn chat_path(&self, _model: &str) -> String {
        "/interactions".to_owned()
    }

    fn write(&self, request: &ChatRequest) -> Value {
        let input: Vec<Value> = request.messages.iter().flat_map(steps).collect();
        let mut body =
            json!({"model": request.model, "input": input, "stream": true, "store": false});
        let mut generation = json!({});
        let options = [
            ("max_output_tokens", request.max_tokens.map(|value| json!(value))),
            ("temperature", request.temperature.map(|value| json!(value))),
            ("top_p", request.top_p.map(|value| json!(value))),
            ("seed", request.seed.map(|value| json!(value))),
            ("stop_sequences", (!request.stop.is_empty()).then(|| json!(request.stop))),
            ("thinking_level", request.effort.as_ref().map(|value| json!(value))),
            ("tool_choice", choice(request)),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                generation[name] = value;
            }
        }
        body["generation_config"] = generation;
        if let Some(system) = &request.system {
            body["system_instruction"] = json!(system);
        }
        if let Some(schema) = &request.schema {
            body["response_format"] =
                json!({"type": "text", "mime_type": "application/json", "schema": schema});
        }
        if !request.tools.is_empty() {
            let tools = request.tools.iter().map(|tool| {
                json!({"type": "function", "name": tool.name, "description": tool.description,
                    "parameters": tool.parameters})
            });
            body["tools"] = tools.collect();
        }
        body
    }

    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        match text(piece, "event_type") {
            "step.start" if piece["step"]["type"] == "function_call" => {
                begin_call(&piece["step"], answer);
            }
            "step.delta" => read_delta(&piece["delta"], answer),
            "interaction.completed" => read_end(&piece["interaction"], answer)?,
            "error" => return Err(refused(503, &piece["error"])),
            _ => refuse_errors(piece)?,
        }
        answer.name(&piece["interaction"]["model"]);
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(body)?;
        let steps = body["steps"].as_array().ok_or(ReadError::Malformed("it has no steps"))?;
        for step in steps {
            match text(step, "type") {
                "model_output" => {
                    for part in step["content"].as_array().into_iter().flatten() {
                        answer.say(text(part, "text"));
                    }
                }
                "thought" => {
                    for part in step["summary"].as_array().into_iter().flatten() {
                        answer.think(text(part, "text"));
                    }
                    answer.sign(text(step, "signature"));
                }
                "function_call" => begin_call(step, answer),
                _ => {}
            }
        }
        answer.name(&body["model"]);
        read_end(body, answer)
    }

    fn usage(&self) -> UsageReader {
        usage::from_interactions
    }

    fn embed(&self, model: &str, texts: &[String]) -> Option<(String, Value)> {
        Some(gemini::embed(model, texts))
    }

    fn read_embeddings(&self, body: &Value) -> Option<(Vec<Vec<f32>>, Usage)> {
        gemini::read_embeddings(body)
    }
}

fn begin_call(step: &Value, answer: &mut Answer) {
    let tool = answer.tool(answer.tools());
    tool.id = text(step, "id").to_owned();
    tool.name = text(step, "name").to_owned();
    // A stream begins with empty arguments and sends them in pieces.
    let given = step["arguments"].as_object().filter(|fields| !fields.is_empty());
    tool.arguments = given.map_or_else(String::new, |_| step["arguments"].to_string());
}

fn read_delta(delta: &Value, answer: &mut Answer) {
    match text(delta, "type") {
        "text" => answer.say(text(delta, "text")),
        "thought_summary" => answer.think(text(&delta["content"], "text")),
        "thought_signature" => answer.sign(text(delta, "signature")),
        "arguments_delta" => {
            // Steps come one after the other: it belongs to the last call.
            let last = answer.tools().saturating_sub(1);
            answer.tool(last).arguments.push_str(text(delta, "arguments"));
        }
        _ => {}
    }
}

fn read_end(interaction: &Value, answer: &mut Answer) -> Result<(), ReadError> {
    answer.count(&interaction["usage"]);
    match text(interaction, "status") {
        "completed" => answer.finish(Some("stop"), ""),
        "requires_action" => answer.finish(Some("tool_calls"), ""),
        "incomplete" => answer.finish(Some("length"), ""),
        "failed" => return Err(refused(503, &interaction["error"])),
        status @ ("cancelled" | "budget_exceeded") => answer.finish(None, status),
        _ => return Err(ReadError::Malformed("it ended in no known status")),
    }
    answer.end();
    Ok(())
}

/// A turn as steps of the timeline: calls and their results are steps of their own.
fn steps(message: &Message) -> Vec<Value> {
    let mut steps = Vec::new();
    let mut content = Vec::new();
    let kind = match message.role {
        Role::User => "user_input",
        Role::Assistant => "model_output",
    };
    for part in &message.parts {
        match part {
            Part::Text { text } => content.push(json!({"type": "text", "text": text})),
            Part::Image { media_type, data } => {
                content.push(json!({"type": "image", "mime_type": media_type, "data": data}));
            }
            Part::ImageUrl { url } => content.push(json!({"type": "image", "uri": url})),
            Part::ToolCall(call) => steps.push(json!({"type": "function_call", "id": call.id,
                "name": call.name, "arguments": arguments(&call.arguments)})),
            Part::ToolResult { id, name, text, is_error } => {
                steps.push(json!({"type": "function_result", "call_id": id, "name": name,
                    "result": text, "is_error": is_error}));
            }
            Part::Thinking { text, signature } => {
                let summary = json!([{"type": "text", "text": text}]);
                let thought =
                    json!({"type": "thought", "signature": signature, "summary": summary});
                steps.push(thought);
            }
        }
    }
    if !content.is_empty() {
        // What was thought comes before what was said, what was asked for after it.
        let after = steps.iter().take_while(|step| step["type"] == "thought").count();
        steps.insert(after, json!({"type": kind, "content": content}));
    }
    steps
}

fn choice(request: &ChatRequest) -> Option<Value> {
    match &request.tool_choice {
        _ if request.tools.is_empty() => None,
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Required => Some(json!("any")),
        ToolChoice::Named(name) => Some(json!({"allowed_tools": {"mode": "any", "tools": [name]}})),
    }
}
