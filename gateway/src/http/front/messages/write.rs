//! Renders replies as messages.

use convergio_domain::chat::{
    ChatReply, Interface, NativeFields, NativePart, Part, RefusalPart, TextPart, ThinkingPart,
    ToolCall,
};
use convergio_domain::json::read_json;
use convergio_domain::metering::{Meter, Usage};
use serde_json::{Value, json};

use super::super::carrier::{Carrier, foreign_fields, message_carrier};
use super::super::{Answered, arguments};

const OWN: Interface = Interface::Anthropic;

pub(super) fn id(run: &str) -> String {
    format!("msg_{run}")
}

/// Renders a reply in one piece.
pub(super) fn message(answered: &Answered<'_>) -> Value {
    let reply = answered.reply;
    let mut content = Vec::new();
    for part in reply.parts() {
        content.push(block(&part));
        // A carrier must directly follow its part: it names the part before it.
        content.extend(carried_fields(&part));
    }
    content.extend(message_block(reply));
    let mut message = json!({"id": id(answered.run), "type": "message", "role": "assistant",
        "model": answered.model, "content": content, "stop_reason": stop(reply),
        "stop_sequence": reply.stop_sequence, "usage": usage(&reply.usage, Some(reply))});
    NativeFields::write(reply.native.as_ref(), OWN, &mut message);
    message
}

/// Renders a part as a block; a part without a block type travels as a carrier that clients cannot
/// read.
pub(super) fn block(part: &Part) -> Value {
    let (mut block, native) = match part {
        Part::Text(TextPart { text, native, .. }) => {
            (json!({"type": "text", "text": text}), native.as_ref())
        }
        Part::Refusal(RefusalPart { text, .. }) => (json!({"type": "text", "text": text}), None),
        Part::Thinking(thinking) => {
            let block = json!({"type": "thinking", "thinking": thinking.text,
                "signature": signature(thinking)});
            (block, thinking.native.as_ref())
        }
        Part::ToolCall(call) => {
            let block = json!({"type": "tool_use", "id": call.id, "name": call.name,
                "input": input(call)});
            (block, call.native.as_ref())
        }
        Part::Native(NativePart { interface: OWN, block }) => return block.clone(),
        part => return carried(&Carrier::Part(part.clone())),
    };
    NativeFields::write(native, OWN, &mut block);
    block
}

fn carried(carrier: &Carrier) -> Value {
    json!({"type": "redacted_thinking", "data": carrier.pack()})
}

/// Returns the carrier block that follows a part with fields of another interface.
pub(super) fn carried_fields(part: &Part) -> Option<Value> {
    let native = foreign_fields(part, OWN)?;
    Some(carried(&Carrier::Previous(native.clone())))
}

/// Returns the carrier block, after all others, with another interface's fields of the whole reply.
pub(super) fn message_block(reply: &ChatReply) -> Option<Value> {
    message_carrier(reply).map(|carrier| carried(&carrier))
}

/// Returns the signature of a thought. A foreign thought is carried as its own signature, since it
/// must come back unchanged.
pub(super) fn signature(thinking: &ThinkingPart) -> String {
    match &thinking.native {
        Some(native) if native.interface != OWN => {
            // The text is in the block already.
            let thinking = ThinkingPart { text: String::new(), ..thinking.clone() };
            Carrier::Part(Part::Thinking(thinking)).pack()
        }
        _ => thinking.signature.clone(),
    }
}

/// Returns the citations of a text.
pub(super) fn citations(native: Option<&NativeFields>) -> &[Value] {
    let native = native.filter(|native| native.interface == OWN);
    let citations = native.and_then(|native| native.fields.get("citations"));
    citations.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns a tool call's arguments as a value.
fn input(call: &ToolCall) -> Value {
    read_json(arguments(call).as_bytes()).unwrap_or_else(|_| json!({}))
}

/// Returns `stop_reason`: the provider's own word if it speaks this interface.
pub(super) fn stop(reply: &ChatReply) -> &str {
    if reply.interface == Some(OWN) && !reply.native_finish.is_empty() {
        return &reply.native_finish;
    }
    match reply.finish.as_str() {
        "stop" if reply.stop_sequence.is_some() => "stop_sequence",
        "stop" if !reply.refusal().is_empty() => "refusal",
        "stop" => "end_turn",
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        "content_filter" => "refusal",
        "pause" => "pause_turn",
        word => word,
    }
}

/// Renders the usage as Anthropic counts it: fresh input excludes tokens read from or written to
/// the cache. The provider's further counts are kept.
pub(super) fn usage(usage: &Usage, reply: Option<&ChatReply>) -> Value {
    let count = |meter| usage.0.get(&meter).copied().unwrap_or(0);
    let (short, long) = (count(Meter::InCacheWrite5m), count(Meter::InCacheWrite1h));
    let read = count(Meter::InCacheRead);
    let counts = json!({
        "input_tokens": usage.tokens_in().saturating_sub(read + short + long),
        "cache_read_input_tokens": read, "cache_creation_input_tokens": short + long,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens": usage.tokens_out()});
    let own = reply.filter(|reply| reply.interface == Some(OWN));
    // The provider's own object, so that counts unknown to the platform are kept.
    let mut block = match own.and_then(|reply| reply.raw_usage.clone()) {
        Some(Value::Object(raw)) => Value::Object(raw),
        _ => json!({}),
    };
    // The platform's counts win over the provider's of the same name.
    if let (Value::Object(block), Value::Object(counts)) = (&mut block, counts) {
        block.extend(counts);
        if let Some(tier) = reply.and_then(|reply| reply.service_tier.as_ref()) {
            block.insert("service_tier".to_owned(), json!(tier));
        }
    }
    block
}
