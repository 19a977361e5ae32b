//! Renders replies as chat completions.

use convergio_domain::billing::{Meter, Usage};
use convergio_domain::chat::{
    ChatInterface, ChatReply, MessagePart, NativeFields, NativePart, RefusalPart, TextPart,
    ThinkingPart, ToolCall,
};
use serde_json::{Map, Value, json};

use super::super::carrier::{Carrier, PartSlot, foreign_fields};
use super::super::dialect::{WholeReply, arguments_json};

/// Fields that stand beside `choices` and not in the message.
const TOP_FIELDS: [&str; 4] = ["system_fingerprint", "citations", "search_results", "provider"];

pub(super) fn completion_id(run: &str) -> String {
    format!("chatcmpl-{run}")
}

/// Renders a reply in one piece.
pub(in super::super) fn render_completion(answered: &WholeReply<'_>, created: u64) -> Value {
    let reply = answered.reply;
    let (native, top) = native_fields(reply);
    let mut message = message_json(reply);
    let details = reasoning_details(reply, &native);
    if let Value::Object(fields) = &mut message {
        fields.extend(native);
        if !details.is_empty() {
            fields.insert("reasoning_details".to_owned(), Value::Array(details));
        }
    }
    let choice = json!({"index": 0, "message": message, "logprobs": null,
        "finish_reason": finish_reason(reply)});
    let mut whole = json!({"id": completion_id(answered.run), "object": "chat.completion",
        "created": created, "model": answered.model, "choices": [choice],
        "usage": usage_json(&reply.usage)});
    add_top_fields(&mut whole, reply, &top);
    whole
}

/// Adds the fields that stand beside `choices`.
pub(super) fn add_top_fields(frame: &mut Value, reply: &ChatReply, top: &Map<String, Value>) {
    let Value::Object(frame) = frame else { return };
    frame.extend(top.clone());
    if let Some(tier) = &reply.service_tier {
        frame.insert("service_tier".to_owned(), json!(tier));
    }
}

/// Returns the reply's native fields: those of the message, and those beside `choices`.
pub(super) fn native_fields(reply: &ChatReply) -> (Map<String, Value>, Map<String, Value>) {
    let fields = own_fields(reply.native.as_ref());
    fields.into_iter().partition(|(name, _)| !TOP_FIELDS.contains(&name.as_str()))
}

fn message_json(reply: &ChatReply) -> Value {
    // One message joins all texts; `reasoning_details` records the order if it is not the usual
    // one.
    let (mut content, mut thought, mut refusal) = (None::<String>, String::new(), String::new());
    let mut calls = Vec::new();
    for part in reply.ordered_parts() {
        match &part {
            MessagePart::Text(TextPart { text, .. }) => {
                // Without any text part `content` stays null.
                content.get_or_insert_default().push_str(text);
            }
            MessagePart::Thinking(ThinkingPart { text, .. }) => thought.push_str(text),
            MessagePart::Refusal(RefusalPart { text, .. }) => refusal.push_str(text),
            MessagePart::ToolCall(call) => calls.push(tool_call_json(call)),
            part => calls.extend(custom_tool_call(part)),
        }
    }
    let refusal = Some(refusal).filter(|refusal| !refusal.is_empty());
    let mut message = json!({"role": "assistant", "content": content, "refusal": refusal});
    if !thought.is_empty() {
        message["reasoning_content"] = json!(thought);
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    message
}

fn tool_call_json(call: &ToolCall) -> Value {
    let function = json!({"name": call.name, "arguments": arguments_json(call)});
    let mut call_json = json!({"id": call.id, "type": "function", "function": function});
    if let Value::Object(written) = &mut call_json {
        written.extend(tool_call_fields(call));
    }
    call_json
}

/// Returns the fields of a tool call besides its arguments. Google's thought signature goes where
/// clients of Google's OpenAI-compatible API expect it.
pub(super) fn tool_call_fields(call: &ToolCall) -> Map<String, Value> {
    let fields = own_fields(call.native.as_ref());
    match &call.native {
        Some(native)
            if matches!(
                native.interface,
                ChatInterface::Gemini | ChatInterface::GeminiInteractions
            ) =>
        {
            let mark = Carrier::Next(native.clone()).pack_text();
            Map::from_iter([(
                "extra_content".to_owned(),
                json!({"google": {"thought_signature": mark}}),
            )])
        }
        _ => fields,
    }
}

/// Returns the block of a custom tool call, whose input is free text.
pub(super) fn custom_tool_call(part: &MessagePart) -> Option<Value> {
    match part {
        MessagePart::Native(NativePart { interface: ChatInterface::OpenAiChat, block })
            if block["custom"].is_object() =>
        {
            Some(block.clone())
        }
        _ => None,
    }
}

/// Returns `reasoning_details`: the provider's own, and a carrier for each part that the message
/// cannot express, with its index among the parts.
pub(super) fn reasoning_details(reply: &ChatReply, native: &Map<String, Value>) -> Vec<Value> {
    let own = native.get("reasoning_details").and_then(Value::as_array);
    let mut details = own.cloned().unwrap_or_default();
    let parts = reply.ordered_parts();
    let thoughts = parts.iter().filter(|part| matches!(part, MessagePart::Thinking(_))).count();
    // A single unsigned thought at the beginning is completely in the message.
    let is_plain = thoughts == 1 && parts.first().is_some_and(is_unmarked);
    let detail = |carrier: Carrier, index: usize| {
        json!({"type": "reasoning.encrypted", "data": carrier.pack_text(), "format": "convergio-v1",
            "index": index})
    };
    // Collected first: the loop below consumes the parts.
    let slots: Vec<PartSlot> = parts.iter().map(|part| part_slot(part, is_plain)).collect();
    for (index, part) in parts.into_iter().enumerate() {
        if let Some(carrier) = part_carrier(part, is_plain) {
            details.push(detail(carrier, index));
        }
    }
    if !is_default_order(&slots) {
        details.push(detail(Carrier::Order(slots), 0));
    }
    details
}

/// Returns the place that a part has in the message.
fn part_slot(part: &MessagePart, is_plain: bool) -> PartSlot {
    match part {
        MessagePart::Text(TextPart { text, .. }) => PartSlot::Text(text.len()),
        MessagePart::Refusal(RefusalPart { text, .. }) => PartSlot::Refusal(text.len()),
        MessagePart::ToolCall(_) => PartSlot::Call,
        MessagePart::Native(_) if custom_tool_call(part).is_some() => PartSlot::Call,
        MessagePart::Thinking(_) if is_plain => PartSlot::Thought,
        _ => PartSlot::Carried,
    }
}

/// True if a reader restores the parts' order without being told: thought, text, refusal, calls.
fn is_default_order(slots: &[PartSlot]) -> bool {
    let rank = |slot: &PartSlot| match slot {
        PartSlot::Thought => 0,
        PartSlot::Text(_) => 1,
        PartSlot::Refusal(_) => 2,
        PartSlot::Call | PartSlot::Carried => 3,
    };
    let at_most_once =
        |is: fn(&PartSlot) -> bool| slots.iter().filter(|slot| is(slot)).count() <= 1;
    let plain: Vec<&PartSlot> = slots.iter().filter(|slot| **slot != PartSlot::Carried).collect();
    plain.is_sorted_by_key(|slot| rank(slot))
        && at_most_once(|slot| matches!(slot, PartSlot::Text(_)))
        && at_most_once(|slot| matches!(slot, PartSlot::Refusal(_)))
}

fn is_unmarked(part: &MessagePart) -> bool {
    matches!(part, MessagePart::Thinking(thinking)
        if thinking.signature.is_empty() && thinking.native.is_none())
}

fn part_carrier(part: MessagePart, is_plain: bool) -> Option<Carrier> {
    match part {
        MessagePart::Thinking(_) if is_plain => None,
        MessagePart::Thinking(_) => Some(Carrier::Part(part)),
        MessagePart::Native(_) if custom_tool_call(&part).is_some() => None,
        MessagePart::Native(_) | MessagePart::Image(_) | MessagePart::Audio(_) => {
            Some(Carrier::Part(part))
        }
        MessagePart::Text(TextPart { native: Some(native), .. }) => Some(Carrier::Previous(native)),
        part => {
            let native: &NativeFields = foreign_fields(&part, ChatInterface::OpenAiChat)?;
            Some(Carrier::Previous(native.clone()))
        }
    }
}

/// Returns `finish_reason`: the platform's word, or the provider's own where the platform has none.
pub(super) fn finish_reason(reply: &ChatReply) -> &str {
    &reply.finish
}

/// Renders the usage as OpenAI counts it: cached tokens are part of the prompt's.
pub(super) fn usage_json(usage: &Usage) -> Value {
    let count = |meter| usage.0.get(&meter).copied().unwrap_or(0);
    let written = count(Meter::InCacheWrite5m) + count(Meter::InCacheWrite1h);
    json!({"prompt_tokens": usage.tokens_in(), "completion_tokens": usage.tokens_out(),
        "total_tokens": usage.total_tokens(),
        "prompt_tokens_details": {"cached_tokens": count(Meter::InCacheRead),
            "cache_write_tokens": written, "audio_tokens": count(Meter::InAudio)},
        "completion_tokens_details": {"reasoning_tokens": count(Meter::OutReasoning),
            "audio_tokens": count(Meter::OutAudio), "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0}})
}

/// Returns the native fields that only OpenAI's chat interface has.
fn own_fields(native: Option<&NativeFields>) -> serde_json::Map<String, Value> {
    let own = native
        .filter(|native| native.interface == convergio_domain::chat::ChatInterface::OpenAiChat);
    own.map(|native| native.fields.clone()).unwrap_or_default()
}
