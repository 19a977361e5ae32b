//! Renders earlier conversations as the input items of a request.

use convergio_domain::chat::{ChatRequest, FilePart, Message, Part, Role, ToolResultPart};
use serde_json::{Value, json};

use super::{ids, write};

/// Maximum earlier calls that a request may refer to; each is read from the log.
const REFERENCES_LIMIT: usize = 64;

/// Returns the runs that a body refers to: the previous response, and those whose items it names.
pub(super) fn references(body: &Value) -> Vec<&str> {
    let previous = body["previous_response_id"].as_str().and_then(ids::run_of_response);
    let mut runs: Vec<&str> = previous.into_iter().collect();
    for item in body["input"].as_array().into_iter().flatten() {
        // Without a type an item with an id only is a reference too.
        let is_reference = item["type"] == "item_reference" || item["type"].is_null();
        let id = item["id"].as_str().filter(|_| is_reference);
        let run = id.and_then(ids::origin).map(|(run, _)| run);
        if let Some(run) = run.filter(|run| !runs.contains(run))
            && runs.len() < REFERENCES_LIMIT
        {
            runs.push(run);
        }
    }
    runs
}

/// Renders the input of a response as items, the oldest first.
pub(in super::super) fn input_items(run: &str, request: &ChatRequest) -> Vec<Value> {
    let mut items = Vec::new();
    for (turn, message) in request.messages.iter().enumerate() {
        let mut content = Vec::new();
        for (place, part) in message.parts.iter().enumerate() {
            match item(run, turn, place, message.role, part) {
                Some(item) => {
                    // Parts before an item of its own belong to a message before it.
                    close(run, turn, message, &mut content, &mut items);
                    items.push(item);
                }
                None => content.push(content_of(part, message.role)),
            }
        }
        close(run, turn, message, &mut content, &mut items);
    }
    items
}

fn close(
    run: &str,
    turn: usize,
    message: &Message,
    content: &mut Vec<Value>,
    items: &mut Vec<Value>,
) {
    if content.is_empty() {
        return;
    }
    let role = match message.role {
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::System => "system",
        Role::Developer => "developer",
    };
    // The number makes the id unique among messages split by items.
    let id = format!("in_{run}_{turn}_{}", items.len());
    items.push(json!({"id": id, "type": "message", "status": "completed", "role": role,
        "content": std::mem::take(content)}));
}

/// Renders a part that is an item of its own; `None` for parts of a message.
fn item(run: &str, turn: usize, place: usize, role: Role, part: &Part) -> Option<Value> {
    let id = format!("in_{run}_{turn}_{place}");
    let mut item = match part {
        Part::ToolResult(result) => {
            json!({"type": "function_call_output", "call_id": result.id, "status": "completed",
                "output": output(result)})
        }
        Part::ToolCall(_) | Part::Thinking(_) | Part::Native(_) => write::item(run, place, part),
        _ if role == Role::Assistant && matches!(part, Part::Image(_)) => {
            write::item(run, place, part)
        }
        _ => return None,
    };
    item["id"] = json!(id);
    Some(item)
}

fn output(result: &ToolResultPart) -> Value {
    match result.parts.as_slice() {
        [] => json!(result.text),
        parts => parts.iter().map(|part| content_of(part, Role::User)).collect(),
    }
}

fn content_of(part: &Part, role: Role) -> Value {
    match part {
        Part::Text(text) if role != Role::Assistant => {
            json!({"type": "input_text", "text": text.text})
        }
        Part::Text(_) | Part::Refusal(_) => write::content_part(part),
        Part::Image(image) => json!({"type": "input_image", "detail": image.detail,
            "image_url": format!("data:{};base64,{}", image.media_type, image.data)}),
        Part::ImageUrl(image) => {
            json!({"type": "input_image", "detail": image.detail, "image_url": image.url})
        }
        Part::File(file) => file_of(file),
        Part::Audio(audio) => json!({"type": "input_audio",
            "input_audio": {"format": audio.format, "data": audio.data}}),
        Part::Native(native) => native.block.clone(),
        Part::ToolCall(_) | Part::ToolResult(_) | Part::Thinking(_) => Value::Null,
    }
}

fn file_of(file: &FilePart) -> Value {
    match (&file.data, &file.text) {
        (Some(data), _) => json!({"type": "input_file", "filename": file.name,
            "file_data": format!("data:{};base64,{data}", file.media_type)}),
        (None, Some(text)) => json!({"type": "input_text", "text": text}),
        (None, None) => {
            json!({"type": "input_file", "filename": file.name, "file_url": file.url})
        }
    }
}
