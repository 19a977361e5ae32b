//! OpenAI's responses, which store nothing when they are asked not to.

use convergio_domain::chat::{ChatRequest, Message, Part, Role, ToolChoice};
use convergio_domain::metering::Usage;
use serde_json::{Value, json};

use super::openai::{embeddings_body, is_strict, read_embeddings};
use super::{Dialect, ReadError, refuse_errors, refused, text};
use crate::model::answer::{Answer, UsageReader};
use crate::model::usage;

/// Responses.
pub(super) struct Responses;

impl Dialect for Responses {
    fn chat_path(&self, _model: &str) -> String {
        "/responses".to_owned()
    }

    fn write(&self, request: &ChatRequest) -> Value {
        let input: Vec<Value> = request.messages.iter().flat_map(items).collect();
        let mut body =
            json!({"model": request.model, "input": input, "stream": true, "store": false});
        let options = [
            ("instructions", request.system.as_ref().map(|value| json!(value))),
            // Less than 16 is refused.
            ("max_output_tokens", request.max_tokens.map(|value| json!(value.max(16)))),
            ("temperature", request.temperature.map(|value| json!(value))),
            ("top_p", request.top_p.map(|value| json!(value))),
            ("reasoning", request.effort.as_ref().map(|value| json!({"effort": value}))),
            ("tools", tools(request)),
            ("tool_choice", choice(request)),
            ("text", request.schema.as_ref().map(format)),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        body
    }

    fn unknown(&self) -> &'static [&'static str] {
        &["seed", "stop"]
    }

    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        match text(piece, "type") {
            "response.output_text.delta" => answer.say(text(piece, "delta")),
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                answer.think(text(piece, "delta"));
            }
            "response.refusal.delta" => answer.refuse(),
            "response.output_item.done" if piece["item"]["type"] == "function_call" => {
                take_call(&piece["item"], answer);
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                read_end(&piece["response"], answer)?;
            }
            "error" => return Err(error_event(piece)),
            _ => refuse_errors(piece)?,
        }
        answer.name(&piece["response"]["model"]);
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(body)?;
        let output = body["output"].as_array();
        let output = output.ok_or(ReadError::Malformed("it has no output"))?;
        for item in output {
            match text(item, "type") {
                "function_call" => take_call(item, answer),
                "message" => {
                    for part in item["content"].as_array().into_iter().flatten() {
                        answer.say(text(part, "text"));
                        if part["type"] == "refusal" {
                            answer.refuse();
                        }
                    }
                }
                "reasoning" => {
                    for part in item["summary"].as_array().into_iter().flatten() {
                        answer.think(text(part, "text"));
                    }
                }
                _ => {}
            }
        }
        answer.name(&body["model"]);
        read_end(body, answer)
    }

    fn usage(&self) -> UsageReader {
        usage::from_responses
    }

    fn embed(&self, model: &str, texts: &[String]) -> Option<(String, Value)> {
        Some(("/embeddings".to_owned(), embeddings_body(model, texts)))
    }

    fn read_embeddings(&self, body: &Value) -> Option<(Vec<Vec<f32>>, Usage)> {
        read_embeddings(body)
    }

    fn audio_path(&self, _model: &str, end: &str) -> Option<String> {
        Some(format!("/audio/{end}"))
    }
}

/// The error event of a stream has its parts at the top.
fn error_event(piece: &Value) -> ReadError {
    match piece.get("error").filter(|error| error.is_object()) {
        Some(error) => refused(503, error),
        None => refused(503, &json!({"code": piece["code"], "message": piece["message"]})),
    }
}

fn read_end(response: &Value, answer: &mut Answer) -> Result<(), ReadError> {
    answer.count(&response["usage"]);
    match text(response, "status") {
        "completed" => answer.finish(Some("stop"), ""),
        "incomplete" => {
            let why = text(&response["incomplete_details"], "reason");
            let known = match why {
                "max_output_tokens" => Some("length"),
                "content_filter" => Some("content_filter"),
                _ => None,
            };
            answer.finish(known, why);
        }
        "failed" => return Err(refused(503, &response["error"])),
        _ => return Err(ReadError::Malformed("it ended in no known status")),
    }
    answer.end();
    Ok(())
}

fn take_call(item: &Value, answer: &mut Answer) {
    let tool = answer.tool(answer.tools());
    tool.id = text(item, "call_id").to_owned();
    tool.name = text(item, "name").to_owned();
    tool.arguments = text(item, "arguments").to_owned();
}

/// A turn as items: calls and their answers are items of their own.
fn items(message: &Message) -> Vec<Value> {
    let mut items = Vec::new();
    let mut content = Vec::new();
    let (role, kind) = match message.role {
        Role::User => ("user", "input_text"),
        Role::Assistant => ("assistant", "output_text"),
    };
    for part in &message.parts {
        match part {
            Part::Text { text } => content.push(json!({"type": kind, "text": text})),
            Part::Image { media_type, data } => {
                let url = format!("data:{media_type};base64,{data}");
                content.push(json!({"type": "input_image", "image_url": url}));
            }
            Part::ImageUrl { url } => {
                content.push(json!({"type": "input_image", "image_url": url}));
            }
            Part::ToolCall(call) => items.push(json!({"type": "function_call",
                "call_id": call.id, "name": call.name, "arguments": call.arguments})),
            Part::ToolResult { id, text, .. } => {
                let output = json!({"type": "function_call_output", "call_id": id, "output": text});
                items.push(output);
            }
            Part::Thinking { .. } => {}
        }
    }
    if !content.is_empty() {
        items.insert(0, json!({"type": "message", "role": role, "content": content}));
    }
    items
}

fn tools(request: &ChatRequest) -> Option<Value> {
    let tools = request.tools.iter().map(|tool| {
        json!({"type": "function", "name": tool.name, "description": tool.description,
            "parameters": tool.parameters, "strict": false})
    });
    (!request.tools.is_empty()).then(|| tools.collect())
}

fn choice(request: &ChatRequest) -> Option<Value> {
    match &request.tool_choice {
        _ if request.tools.is_empty() => None,
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Required => Some(json!("required")),
        ToolChoice::Named(name) => Some(json!({"type": "function", "name": name})),
    }
}

fn format(schema: &Value) -> Value {
    let strict = is_strict(schema);
    json!({"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": strict}})
}
