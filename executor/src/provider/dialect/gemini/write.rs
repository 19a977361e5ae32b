//! Writing requests for Google's `generateContent`.

use convergio_domain::chat::{
    AudioPart, ChatField, ChatInterface, ChatMessage, ChatRequest, FilePart, MessagePart,
    MessageRole, NativeFields, RefusalPart, TextPart, ThinkingPart, ToolCall, ToolChoice,
    ToolResultPart,
};
use serde_json::{Value, json};

use crate::provider::dialect::json_fields::{
    arguments_object, description_value, is_system_message, put_extra_body, put_present,
    split_system,
};

/// The signature that Google documents for tool calls whose own is not available. Conversations
/// from other interfaces have none, and newer models reject a request without one.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";
/// The field of a part's thought signature.
const SIGNATURE: &str = "thoughtSignature";

/// Writes the body of a request.
pub(super) fn write_body(request: &ChatRequest) -> Value {
    let messages = request.messages.iter().filter(|message| !is_system_message(message));
    let contents: Vec<Value> = messages.filter_map(write_message).collect();
    let mut body = json!({"contents": contents, "generationConfig": generation_config(request)});
    let (leading, _) = split_system(&request.messages);
    let opening = request.system.as_ref().map(|system| json!({"text": system}));
    let parts = leading.iter().flat_map(|message| &message.parts);
    let system: Vec<Value> = opening.into_iter().chain(parts.filter_map(write_part)).collect();
    if !system.is_empty() {
        body["systemInstruction"] = json!({"parts": system});
    }
    put_tools(&mut body, request);
    put_extra_body(&mut body, request);
    body
}

fn generation_config(request: &ChatRequest) -> Value {
    let option = |field| request.options.get(&field).cloned();
    let is_json = request.schema.is_some() || request.json_object;
    let level = request.effort.as_ref().map(|effort| json!({"thinkingLevel": effort}));
    let mut generation = json!({});
    put_present(
        &mut generation,
        [
            ("maxOutputTokens", request.max_tokens.map(|value| json!(value))),
            ("temperature", request.temperature.map(|value| json!(value))),
            ("topP", request.top_p.map(|value| json!(value))),
            ("topK", option(ChatField::TopK)),
            ("seed", request.seed.map(|value| json!(value))),
            ("stopSequences", (!request.stop.is_empty()).then(|| json!(request.stop))),
            ("frequencyPenalty", option(ChatField::FrequencyPenalty)),
            ("presencePenalty", option(ChatField::PresencePenalty)),
            ("responseMimeType", is_json.then(|| json!("application/json"))),
            ("responseJsonSchema", request.schema.clone()),
            ("thinkingConfig", level),
        ],
    );
    generation
}

fn put_tools(body: &mut Value, request: &ChatRequest) {
    let functions = request.tools.iter().map(|tool| {
        let mut object = json!({"name": tool.name, "parametersJsonSchema": tool.parameters});
        put_present(&mut object, [("description", description_value(&tool.description))]);
        NativeFields::write_into(tool.native.as_ref(), ChatInterface::Gemini, &mut object);
        object
    });
    let functions: Vec<Value> = functions.collect();
    let mut tools = Vec::new();
    if !functions.is_empty() {
        tools.push(json!({"functionDeclarations": functions}));
        body["toolConfig"] = json!({"functionCallingConfig": calling_config(&request.tool_choice)});
    }
    tools.extend(request.native_tools.iter().map(|tool| tool.block.clone()));
    if !tools.is_empty() {
        body["tools"] = json!(tools);
    }
}

fn write_message(message: &ChatMessage) -> Option<Value> {
    let role = if message.role == MessageRole::Assistant { "model" } else { "user" };
    let mut parts: Vec<Value> = message.parts.iter().filter_map(write_part).collect();
    if parts.is_empty() {
        return None;
    }
    if !parts.iter().any(|part| part[SIGNATURE].is_string()) {
        // A turn with any signature is left as it is: further parallel calls in it carry none.
        let calls = parts.iter_mut().filter(|part| part["functionCall"].is_object());
        calls.for_each(|part| part[SIGNATURE] = json!(NO_SIGNATURE));
    }
    let mut object = json!({"role": role, "parts": parts});
    NativeFields::write_into(message.native.as_ref(), ChatInterface::Gemini, &mut object);
    Some(object)
}

/// Writes a part; `None` for an empty text, which the interface rejects unless it carries a
/// signature.
fn write_part(part: &MessagePart) -> Option<Value> {
    let has_own_fields = |native: &Option<NativeFields>| {
        native.as_ref().is_some_and(|native| native.interface == ChatInterface::Gemini)
    };
    let (mut object, native) = match part {
        MessagePart::Text(TextPart { text, native, .. })
            if text.is_empty() && !has_own_fields(native) =>
        {
            return None;
        }
        MessagePart::Text(TextPart { text, native, .. }) => (json!({"text": text}), native),
        MessagePart::Refusal(RefusalPart { text, .. }) => return Some(json!({"text": text})),
        MessagePart::Image(part) => {
            let data = json!({"mimeType": part.media_type, "data": part.data});
            (json!({"inlineData": data}), &part.native)
        }
        MessagePart::ImageUrl(part) => (json!({"fileData": {"fileUri": part.url}}), &part.native),
        MessagePart::File(file) => (document_part(file), &file.native),
        MessagePart::Audio(AudioPart { format, data, native }) => {
            let data = json!({"mimeType": format!("audio/{format}"), "data": data});
            (json!({"inlineData": data}), native)
        }
        MessagePart::ToolCall(call) => (write_call(call), &call.native),
        MessagePart::ToolResult(result) => (write_result(result), &result.native),
        MessagePart::Thinking(ThinkingPart { text, native, .. }) => {
            (json!({"text": text, "thought": true}), native)
        }
        MessagePart::Native(native) => return Some(native.block.clone()),
    };
    NativeFields::write_into(native.as_ref(), ChatInterface::Gemini, &mut object);
    Some(object)
}

fn write_call(call: &ToolCall) -> Value {
    let args = arguments_object(&call.arguments);
    json!({"functionCall": {"id": call.id, "name": call.name, "args": args}})
}

fn document_part(file: &FilePart) -> Value {
    match (&file.data, &file.text, &file.url) {
        (Some(data), ..) => json!({"inlineData": {"mimeType": file.media_type, "data": data}}),
        (None, Some(text), _) => json!({"text": text}),
        (None, None, url) => {
            json!({"fileData": {"mimeType": file.media_type, "fileUri": url}})
        }
    }
}

fn write_result(result: &ToolResultPart) -> Value {
    // The interface has no flag for errors: the key of the response marks one.
    let key = if result.is_error { "error" } else { "result" };
    let mut response = json!({"id": result.id, "name": result.name,
        "response": {key: result.all_text()}});
    let media: Vec<Value> = result.parts.iter().filter_map(media_part).collect();
    if !media.is_empty() {
        response["parts"] = json!(media);
    }
    json!({"functionResponse": response})
}

/// Writes a part of a tool result that is no text.
fn media_part(part: &MessagePart) -> Option<Value> {
    match part {
        MessagePart::Text(_) => None,
        part => write_part(part),
    }
}

fn calling_config(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!({"mode": "AUTO"}),
        ToolChoice::None => json!({"mode": "NONE"}),
        ToolChoice::Required => json!({"mode": "ANY"}),
        ToolChoice::Named(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
    }
}
