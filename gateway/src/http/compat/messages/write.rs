//! Renders replies as messages.

use convergio_domain::billing::{Meter, Usage};
use convergio_domain::chat::{
    ChatInterface, ChatReply, MessagePart, NativeFields, NativePart, RefusalPart, TextPart,
    ThinkingPart, ToolCall,
};
use convergio_domain::json::read_json;
use serde_json::{Value, json};

use super::super::carrier::{Carrier, foreign_fields, message_carrier};
use super::super::dialect::{WholeReply, arguments_json};

const OWN_INTERFACE: ChatInterface = ChatInterface::Anthropic;

pub(super) fn message_id(run: &str) -> String {
    format!("msg_{run}")
}

/// Renders a reply in one piece.
pub(super) fn render_message(answered: &WholeReply<'_>) -> Value {
    let reply = answered.reply;
    let mut content = Vec::new();
    for part in reply.ordered_parts() {
        content.push(block_json(&part));
        // A carrier must directly follow its part: it names the part before it.
        content.extend(foreign_fields_block(&part));
    }
    content.extend(message_fields_block(reply));
    let mut message = json!({"id": message_id(answered.run), "type": "message", "role": "assistant",
        "model": answered.model, "content": content, "stop_reason": stop_reason(reply),
        "stop_sequence": reply.stop_sequence, "usage": usage_json(&reply.usage, Some(reply))});
    NativeFields::write_into(reply.native.as_ref(), OWN_INTERFACE, &mut message);
    message
}

/// Renders a part as a block; a part without a block type travels as a carrier that clients cannot
/// read.
pub(super) fn block_json(part: &MessagePart) -> Value {
    let (mut block, native) = match part {
        MessagePart::Text(TextPart { text, native, .. }) => {
            (json!({"type": "text", "text": text}), native.as_ref())
        }
        MessagePart::Refusal(RefusalPart { text, .. }) => {
            (json!({"type": "text", "text": text}), None)
        }
        MessagePart::Thinking(thinking) => {
            let block = json!({"type": "thinking", "thinking": thinking.text,
                "signature": thinking_signature(thinking)});
            (block, thinking.native.as_ref())
        }
        MessagePart::ToolCall(call) => {
            let block = json!({"type": "tool_use", "id": call.id, "name": call.name,
                "input": call_input(call)});
            (block, call.native.as_ref())
        }
        MessagePart::Native(NativePart { interface: OWN_INTERFACE, block }) => {
            return block.clone();
        }
        part => return carrier_block(&Carrier::Part(part.clone())),
    };
    NativeFields::write_into(native, OWN_INTERFACE, &mut block);
    block
}

fn carrier_block(carrier: &Carrier) -> Value {
    json!({"type": "redacted_thinking", "data": carrier.pack_text()})
}

/// Returns the carrier block that follows a part with fields of another interface.
pub(super) fn foreign_fields_block(part: &MessagePart) -> Option<Value> {
    let native = foreign_fields(part, OWN_INTERFACE)?;
    Some(carrier_block(&Carrier::Previous(native.clone())))
}

/// Returns the carrier block, after all others, with another interface's fields of the whole reply.
pub(super) fn message_fields_block(reply: &ChatReply) -> Option<Value> {
    message_carrier(reply).map(|carrier| carrier_block(&carrier))
}

/// Returns the signature of a thought. A foreign thought is carried as its own signature, since it
/// must come back unchanged.
pub(super) fn thinking_signature(thinking: &ThinkingPart) -> String {
    match &thinking.native {
        Some(native) if native.interface != OWN_INTERFACE => {
            // The text is in the block already.
            let thinking = ThinkingPart { text: String::new(), ..thinking.clone() };
            Carrier::Part(MessagePart::Thinking(thinking)).pack_text()
        }
        _ => thinking.signature.clone(),
    }
}

/// Returns the citations of a text.
pub(super) fn text_citations(native: Option<&NativeFields>) -> &[Value] {
    let native = native.filter(|native| native.interface == OWN_INTERFACE);
    let citations = native.and_then(|native| native.fields.get("citations"));
    citations.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns a tool call's arguments as a value.
fn call_input(call: &ToolCall) -> Value {
    read_json(arguments_json(call).as_bytes()).unwrap_or_else(|_| json!({}))
}

/// Returns `stop_reason`: the provider's own word if it speaks this interface.
pub(super) fn stop_reason(reply: &ChatReply) -> &str {
    if reply.interface == Some(OWN_INTERFACE) && !reply.native_finish.is_empty() {
        return &reply.native_finish;
    }
    match reply.finish.as_str() {
        "stop" if reply.stop_sequence.is_some() => "stop_sequence",
        "stop" if !reply.refusal_text().is_empty() => "refusal",
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
pub(super) fn usage_json(usage: &Usage, reply: Option<&ChatReply>) -> Value {
    let count = |meter| usage.0.get(&meter).copied().unwrap_or(0);
    let (short, long) = (count(Meter::InCacheWrite5m), count(Meter::InCacheWrite1h));
    let read = count(Meter::InCacheRead);
    let counts = json!({
        "input_tokens": usage.tokens_in().saturating_sub(read + short + long),
        "cache_read_input_tokens": read, "cache_creation_input_tokens": short + long,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens": usage.tokens_out()});
    let own = reply.filter(|reply| reply.interface == Some(OWN_INTERFACE));
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
