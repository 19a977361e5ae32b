//! Renders replies as responses, and parts as items.

use convergio_domain::billing::{Meter, Usage};
use convergio_domain::chat::{
    ChatInterface, ChatReply, MessagePart, NativeFields, NativePart, RefusalPart, TextPart,
    ThinkingPart, ToolCall,
};
use serde_json::{Map, Value, json};

use super::super::carrier::{Carrier, foreign_fields, message_carrier};
use super::super::dialect::arguments_json;
use super::ids;

const OWN_INTERFACE: ChatInterface = ChatInterface::OpenAiResponses;
/// Fields of a message that stand beside its content.
const ITEM_FIELDS: [&str; 2] = ["phase", "end_turn"];

/// Renders the output items of a reply.
pub(super) fn output_items(run: &str, reply: &ChatReply) -> Value {
    let mut items = Vec::new();
    for (place, part) in reply.ordered_parts().iter().enumerate() {
        items.push(item_json(run, place, part));
        items.extend(foreign_fields_item(run, place, part));
    }
    items.extend(message_fields_item(run, reply));
    Value::Array(items)
}

/// Returns the id of the item that a part becomes.
pub(super) fn item_id(run: &str, place: usize, part: &MessagePart) -> String {
    let prefix = match part {
        MessagePart::Text(_) | MessagePart::Refusal(_) => "msg",
        MessagePart::ToolCall(_) => "fc",
        _ => "rs",
    };
    ids::part_item_id(prefix, run, place)
}

/// Renders a part as an item.
pub(super) fn item_json(run: &str, place: usize, part: &MessagePart) -> Value {
    let id = item_id(run, place, part);
    match part {
        MessagePart::Text(TextPart { native, .. })
        | MessagePart::Refusal(RefusalPart { native, .. }) => {
            let own = own_fields(native.as_ref());
            let mut item = message_json(&id, &content_part(part));
            for name in ITEM_FIELDS {
                if let Some(value) = own.get(name) {
                    item[name] = value.clone();
                }
            }
            item
        }
        MessagePart::ToolCall(call) => call_item(&id, call),
        MessagePart::Thinking(thinking) => reasoning_item(&id, thinking),
        MessagePart::Native(NativePart { interface: OWN_INTERFACE, block }) => block.clone(),
        part => carrier_item(&id, &Carrier::Part(part.clone())),
    }
}

fn message_json(id: &str, content: &Value) -> Value {
    json!({"id": id, "type": "message", "role": "assistant", "status": "completed",
        "content": [content]})
}

/// Renders a text or refusal as the content of a message.
pub(super) fn content_part(part: &MessagePart) -> Value {
    match part {
        MessagePart::Refusal(RefusalPart { text, .. }) => {
            json!({"type": "refusal", "refusal": text})
        }
        MessagePart::Text(TextPart { text, native, .. }) => {
            let mut part =
                json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
            for (name, value) in own_fields(native.as_ref()) {
                if matches!(name.as_str(), "annotations" | "logprobs") {
                    part[name] = value;
                }
            }
            part
        }
        _ => Value::Null,
    }
}

fn own_fields(native: Option<&NativeFields>) -> Map<String, Value> {
    let own = native.filter(|native| native.interface == OWN_INTERFACE);
    own.map(|native| native.fields.clone()).unwrap_or_default()
}

fn call_item(id: &str, call: &ToolCall) -> Value {
    let mut item = json!({"id": id, "type": "function_call", "call_id": call.id,
        "name": call.name, "arguments": arguments_json(call), "status": "completed"});
    if let Some(namespace) = own_fields(call.native.as_ref()).remove("namespace") {
        item["namespace"] = namespace;
    }
    item
}

/// Renders a thought. What its maker must get back travels whole in `encrypted_content`, under an
/// id of ours.
fn reasoning_item(id: &str, thinking: &ThinkingPart) -> Value {
    let mut own = own_fields(thinking.native.as_ref());
    let summary = own.remove("summary").unwrap_or_else(|| match thinking.text.as_str() {
        "" => json!([]),
        text => json!([{"type": "summary_text", "text": text}]),
    });
    let mut item = json!({"id": id, "type": "reasoning", "summary": summary});
    if let Some(content) = own.remove("content").filter(|content| !content.is_null()) {
        item["content"] = content;
    }
    if !thinking.signature.is_empty() || thinking.native.is_some() {
        let carrier = Carrier::Part(MessagePart::Thinking(thinking.clone()));
        item["encrypted_content"] = json!(carrier.pack_text());
    }
    item
}

fn carrier_item(id: &str, carrier: &Carrier) -> Value {
    json!({"id": id, "type": "reasoning", "summary": [], "encrypted_content": carrier.pack_text()})
}

/// Returns the carrier item that follows a part with fields of another interface.
pub(super) fn foreign_fields_item(run: &str, place: usize, part: &MessagePart) -> Option<Value> {
    let native = foreign_fields(part, OWN_INTERFACE)?;
    Some(carrier_item(&ids::fields_item_id(run, place), &Carrier::Previous(native.clone())))
}

/// Returns the carrier item, after all others, with another interface's fields of the whole reply.
pub(super) fn message_fields_item(run: &str, reply: &ChatReply) -> Option<Value> {
    let carrier = message_carrier(reply)?;
    Some(carrier_item(&ids::fields_item_id(run, reply.ordered_parts().len()), &carrier))
}

/// Returns the status of a response and its `incomplete_details`.
pub(super) fn response_status(reply: &ChatReply) -> (&'static str, Value) {
    match reply.finish.as_str() {
        "stop" | "tool_calls" | "" => ("completed", Value::Null),
        "length" => ("incomplete", json!({"reason": "max_output_tokens"})),
        word => ("incomplete", json!({"reason": word})),
    }
}

/// Renders the usage as OpenAI counts it: cached tokens are part of the input's.
pub(super) fn usage_json(usage: &Usage) -> Value {
    let count = |meter| usage.0.get(&meter).copied().unwrap_or(0);
    let written = count(Meter::InCacheWrite5m) + count(Meter::InCacheWrite1h);
    json!({"input_tokens": usage.tokens_in(), "output_tokens": usage.tokens_out(),
        "total_tokens": usage.total_tokens(),
        "input_tokens_details": {"cached_tokens": count(Meter::InCacheRead),
            "cache_write_tokens": written},
        "output_tokens_details": {"reasoning_tokens": count(Meter::OutReasoning)}})
}
