//! Renders earlier conversations as the input items of a request.

use convergio_domain::chat::{
    ChatMessage, ChatRequest, FilePart, MessagePart, MessageRole, ToolResultPart,
};
use serde_json::{Value, json};

use super::{ids, write};

/// Maximum earlier calls that a request may refer to; each is read from the log.
const REFERENCES_LIMIT: usize = 64;

/// Returns the runs that a body refers to: the previous response, and those whose items it names.
pub(super) fn referenced_runs(body: &Value) -> Vec<&str> {
    let previous = body["previous_response_id"].as_str().and_then(ids::run_of_response);
    let mut runs: Vec<&str> = previous.into_iter().collect();
    for item in body["input"].as_array().into_iter().flatten() {
        // Without a type an item with an id only is a reference too.
        let is_reference = item["type"] == "item_reference" || item["type"].is_null();
        let id = item["id"].as_str().filter(|_| is_reference);
        let run = id.and_then(ids::parse_item_id).map(|(run, _)| run);
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
            match input_item(run, turn, place, message.role, part) {
                Some(item) => {
                    // Parts before an item of its own belong to a message before it.
                    close_message(run, turn, message, &mut content, &mut items);
                    items.push(item);
                }
                None => content.push(content_json(part, message.role)),
            }
        }
        close_message(run, turn, message, &mut content, &mut items);
    }
    items
}

fn close_message(
    run: &str,
    turn: usize,
    message: &ChatMessage,
    content: &mut Vec<Value>,
    items: &mut Vec<Value>,
) {
    if content.is_empty() {
        return;
    }
    let role = match message.role {
        MessageRole::User => "user",
        MessageRole::Assistant => "assistant",
        MessageRole::System => "system",
        MessageRole::Developer => "developer",
    };
    // The number makes the id unique among messages split by items.
    let id = format!("in_{run}_{turn}_{}", items.len());
    items.push(json!({"id": id, "type": "message", "status": "completed", "role": role,
        "content": std::mem::take(content)}));
}

/// Renders a part that is an item of its own; `None` for parts of a message.
fn input_item(
    run: &str,
    turn: usize,
    place: usize,
    role: MessageRole,
    part: &MessagePart,
) -> Option<Value> {
    let id = format!("in_{run}_{turn}_{place}");
    let mut item = match part {
        MessagePart::ToolResult(result) => {
            json!({"type": "function_call_output", "call_id": result.id, "status": "completed",
                "output": result_output(result)})
        }
        MessagePart::ToolCall(_) | MessagePart::Thinking(_) | MessagePart::Native(_) => {
            write::item_json(run, place, part)
        }
        _ if role == MessageRole::Assistant && matches!(part, MessagePart::Image(_)) => {
            write::item_json(run, place, part)
        }
        _ => return None,
    };
    item["id"] = json!(id);
    Some(item)
}

fn result_output(result: &ToolResultPart) -> Value {
    match result.parts.as_slice() {
        [] => json!(result.text),
        parts => parts.iter().map(|part| content_json(part, MessageRole::User)).collect(),
    }
}

fn content_json(part: &MessagePart, role: MessageRole) -> Value {
    match part {
        MessagePart::Text(text) if role != MessageRole::Assistant => {
            json!({"type": "input_text", "text": text.text})
        }
        MessagePart::Text(_) | MessagePart::Refusal(_) => write::content_part(part),
        MessagePart::Image(image) => json!({"type": "input_image", "detail": image.detail,
            "image_url": format!("data:{};base64,{}", image.media_type, image.data)}),
        MessagePart::ImageUrl(image) => {
            json!({"type": "input_image", "detail": image.detail, "image_url": image.url})
        }
        MessagePart::File(file) => file_json(file),
        MessagePart::Audio(audio) => json!({"type": "input_audio",
            "input_audio": {"format": audio.format, "data": audio.data}}),
        MessagePart::Native(native) => native.block.clone(),
        MessagePart::ToolCall(_) | MessagePart::ToolResult(_) | MessagePart::Thinking(_) => {
            Value::Null
        }
    }
}

fn file_json(file: &FilePart) -> Value {
    match (&file.data, &file.text) {
        (Some(data), _) => json!({"type": "input_file", "filename": file.name,
            "file_data": format!("data:{};base64,{data}", file.media_type)}),
        (None, Some(text)) => json!({"type": "input_text", "text": text}),
        (None, None) => {
            json!({"type": "input_file", "filename": file.name, "file_url": file.url})
        }
    }
}
