//! Renders replies as chat completions.

use convergio_domain::chat::{
    ChatReply, Interface, NativeFields, NativePart, Part, RefusalPart, TextPart, ThinkingPart,
    ToolCall,
};
use convergio_domain::metering::{Meter, Usage};
use serde_json::{Map, Value, json};

use super::super::carrier::{Carrier, Slot, foreign_fields};
use super::super::{Answered, arguments};
use super::own_fields;

/// Fields that stand beside `choices` and not in the message.
const TOP: [&str; 4] = ["system_fingerprint", "citations", "search_results", "provider"];

pub(super) fn id(run: &str) -> String {
    format!("chatcmpl-{run}")
}

/// Renders a reply in one piece.
pub(in super::super) fn completion(answered: &Answered<'_>, created: u64) -> Value {
    let reply = answered.reply;
    let (native, top) = native_fields(reply);
    let mut message = message(reply);
    let details = details(reply, &native);
    if let Value::Object(fields) = &mut message {
        fields.extend(native);
        if !details.is_empty() {
            fields.insert("reasoning_details".to_owned(), Value::Array(details));
        }
    }
    let choice = json!({"index": 0, "message": message, "logprobs": null,
        "finish_reason": finish(reply)});
    let mut whole = json!({"id": id(answered.run), "object": "chat.completion", "created": created,
        "model": answered.model, "choices": [choice], "usage": usage(&reply.usage)});
    add_top(&mut whole, reply, &top);
    whole
}

/// Adds the fields that stand beside `choices`.
pub(super) fn add_top(frame: &mut Value, reply: &ChatReply, top: &Map<String, Value>) {
    let Value::Object(frame) = frame else { return };
    frame.extend(top.clone());
    if let Some(tier) = &reply.service_tier {
        frame.insert("service_tier".to_owned(), json!(tier));
    }
}

/// Returns the reply's native fields: those of the message, and those beside `choices`.
pub(super) fn native_fields(reply: &ChatReply) -> (Map<String, Value>, Map<String, Value>) {
    let fields = own_fields(reply.native.as_ref());
    fields.into_iter().partition(|(name, _)| !TOP.contains(&name.as_str()))
}

fn message(reply: &ChatReply) -> Value {
    // One message joins all texts; `reasoning_details` records the order if it is not the usual
    // one.
    let (mut content, mut thought, mut refusal) = (None::<String>, String::new(), String::new());
    let mut calls = Vec::new();
    for part in reply.parts() {
        match &part {
            Part::Text(TextPart { text, .. }) => {
                // Without any text part `content` stays null.
                content.get_or_insert_default().push_str(text);
            }
            Part::Thinking(ThinkingPart { text, .. }) => thought.push_str(text),
            Part::Refusal(RefusalPart { text, .. }) => refusal.push_str(text),
            Part::ToolCall(call) => calls.push(call_of(call)),
            part => calls.extend(custom_call(part)),
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

fn call_of(call: &ToolCall) -> Value {
    let function = json!({"name": call.name, "arguments": arguments(call)});
    let mut written = json!({"id": call.id, "type": "function", "function": function});
    if let Value::Object(written) = &mut written {
        written.extend(fields_of_call(call));
    }
    written
}

/// Returns the fields of a tool call besides its arguments. Google's thought signature goes where
/// clients of Google's OpenAI-compatible API expect it.
pub(super) fn fields_of_call(call: &ToolCall) -> Map<String, Value> {
    let fields = own_fields(call.native.as_ref());
    match &call.native {
        Some(native)
            if matches!(native.interface, Interface::Gemini | Interface::GeminiInteractions) =>
        {
            let mark = Carrier::Next(native.clone()).pack();
            Map::from_iter([(
                "extra_content".to_owned(),
                json!({"google": {"thought_signature": mark}}),
            )])
        }
        _ => fields,
    }
}

/// Returns the block of a custom tool call, whose input is free text.
pub(super) fn custom_call(part: &Part) -> Option<Value> {
    match part {
        Part::Native(NativePart { interface: Interface::OpenAiChat, block })
            if block["custom"].is_object() =>
        {
            Some(block.clone())
        }
        _ => None,
    }
}

/// Returns `reasoning_details`: the provider's own, and a carrier for each part that the message
/// cannot express, with its index among the parts.
pub(super) fn details(reply: &ChatReply, native: &Map<String, Value>) -> Vec<Value> {
    let own = native.get("reasoning_details").and_then(Value::as_array);
    let mut details = own.cloned().unwrap_or_default();
    let parts = reply.parts();
    let thoughts = parts.iter().filter(|part| matches!(part, Part::Thinking(_))).count();
    // A single unsigned thought at the beginning is completely in the message.
    let is_plain = thoughts == 1 && parts.first().is_some_and(is_unmarked);
    let detail = |carrier: Carrier, index: usize| {
        json!({"type": "reasoning.encrypted", "data": carrier.pack(), "format": "convergio-v1",
            "index": index})
    };
    // Collected first: the loop below consumes the parts.
    let slots: Vec<Slot> = parts.iter().map(|part| slot(part, is_plain)).collect();
    for (index, part) in parts.into_iter().enumerate() {
        if let Some(carrier) = carrier(part, is_plain) {
            details.push(detail(carrier, index));
        }
    }
    if !is_usual(&slots) {
        details.push(detail(Carrier::Order(slots), 0));
    }
    details
}

/// Returns the place that a part has in the message.
fn slot(part: &Part, is_plain: bool) -> Slot {
    match part {
        Part::Text(TextPart { text, .. }) => Slot::Text(text.len()),
        Part::Refusal(RefusalPart { text, .. }) => Slot::Refusal(text.len()),
        Part::ToolCall(_) => Slot::Call,
        Part::Native(_) if custom_call(part).is_some() => Slot::Call,
        Part::Thinking(_) if is_plain => Slot::Thought,
        _ => Slot::Carried,
    }
}

/// True if a reader restores the parts' order without being told: thought, text, refusal, calls.
fn is_usual(slots: &[Slot]) -> bool {
    let rank = |slot: &Slot| match slot {
        Slot::Thought => 0,
        Slot::Text(_) => 1,
        Slot::Refusal(_) => 2,
        Slot::Call | Slot::Carried => 3,
    };
    let once = |is: fn(&Slot) -> bool| slots.iter().filter(|slot| is(slot)).count() <= 1;
    let plain: Vec<&Slot> = slots.iter().filter(|slot| **slot != Slot::Carried).collect();
    plain.is_sorted_by_key(|slot| rank(slot))
        && once(|slot| matches!(slot, Slot::Text(_)))
        && once(|slot| matches!(slot, Slot::Refusal(_)))
}

fn is_unmarked(part: &Part) -> bool {
    matches!(part, Part::Thinking(thinking)
        if thinking.signature.is_empty() && thinking.native.is_none())
}

fn carrier(part: Part, is_plain: bool) -> Option<Carrier> {
    match part {
        Part::Thinking(_) if is_plain => None,
        Part::Thinking(_) => Some(Carrier::Part(part)),
        Part::Native(_) if custom_call(&part).is_some() => None,
        Part::Native(_) | Part::Image(_) | Part::Audio(_) => Some(Carrier::Part(part)),
        Part::Text(TextPart { native: Some(native), .. }) => Some(Carrier::Previous(native)),
        part => {
            let native: &NativeFields = foreign_fields(&part, Interface::OpenAiChat)?;
            Some(Carrier::Previous(native.clone()))
        }
    }
}

/// Returns `finish_reason`: the platform's word, or the provider's own where the platform has none.
pub(super) fn finish(reply: &ChatReply) -> &str {
    &reply.finish
}

/// Renders the usage as OpenAI counts it: cached tokens are part of the prompt's.
pub(super) fn usage(usage: &Usage) -> Value {
    let count = |meter| usage.0.get(&meter).copied().unwrap_or(0);
    let written = count(Meter::InCacheWrite5m) + count(Meter::InCacheWrite1h);
    json!({"prompt_tokens": usage.tokens_in(), "completion_tokens": usage.tokens_out(),
        "total_tokens": usage.tokens(),
        "prompt_tokens_details": {"cached_tokens": count(Meter::InCacheRead),
            "cache_write_tokens": written, "audio_tokens": count(Meter::InAudio)},
        "completion_tokens_details": {"reasoning_tokens": count(Meter::OutReasoning),
            "audio_tokens": count(Meter::OutAudio), "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0}})
}
