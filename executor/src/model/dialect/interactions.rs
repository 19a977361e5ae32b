//! Google's interactions, the newer interface of Gemini, used without storage at the provider.

use convergio_domain::chat::{
    ChatRequest, FilePart, Interface, Message, NativeFields, Part, RefusalPart, Role, TextPart,
    ToolChoice, ToolSpec,
};
use serde_json::{Map, Value, json};

use super::{
    Dialect, Embeddings, ReadError, arguments, description, gemini, has_tools, put, put_extra,
    refuse_errors, refused, rest, split_system, text, tools_of,
};
use crate::model::answer::{Answer, UsageReader};
use crate::model::provider_traits::ProviderTraits;
use crate::model::usage;

const INTERFACE: Interface = Interface::GeminiInteractions;

/// The dialect of Google's interactions.
pub(super) struct Interactions;

impl Dialect for Interactions {
    fn interface(&self) -> Interface {
        INTERFACE
    }

    fn chat_path(&self, _model: &str, _is_stream: bool) -> String {
        "/interactions".to_owned()
    }

    fn write(&self, request: &ChatRequest, traits: &ProviderTraits) -> Value {
        let mut generation = json!({});
        put(
            &mut generation,
            [
                ("max_output_tokens", request.max_tokens.map(|value| json!(value))),
                ("temperature", request.temperature.map(|value| json!(value))),
                ("top_p", request.top_p.map(|value| json!(value))),
                ("seed", request.seed.map(|value| json!(value))),
                ("stop_sequences", (!request.stop.is_empty()).then(|| json!(request.stop))),
                ("thinking_level", request.effort.as_ref().map(|value| json!(value))),
                ("tool_choice", choice(request)),
            ],
        );
        let (_, messages) = split_system(&request.messages);
        let mut input = Vec::new();
        messages.iter().for_each(|message| add_steps(message, &mut input));
        let mut body = json!({"model": request.model, "input": input, "store": false,
            "generation_config": generation});
        put(
            &mut body,
            [
                ("stream", traits.is_stream().then_some(json!(true))),
                ("system_instruction", system(request)),
                ("response_format", format(request)),
                ("tools", tools_of(request, tool)),
            ],
        );
        put_extra(&mut body, request);
        body
    }

    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        let index = piece["index"].as_u64();
        match text(piece, "event_type") {
            "step.start" => begin_step(&piece["step"], index, answer),
            "step.delta" => read_delta(&piece["delta"], index, answer),
            "step.stop" => {
                let place = answer.parts.keyed(index);
                answer.parts.close(place);
            }
            "interaction.completed" => {
                answer.name(&piece["interaction"]["model"]);
                read_end(&piece["interaction"], answer)?;
            }
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
            begin_step(step, None, answer);
            let place = answer.parts.newest();
            answer.parts.close(place);
        }
        answer.name(&body["model"]);
        read_end(body, answer)
    }

    fn usage(&self) -> UsageReader {
        usage::from_interactions
    }

    fn embed_path(&self, model: &str) -> Option<String> {
        Some(gemini::embed_path(model))
    }

    fn write_embed(&self, model: &str, texts: &[String], dimensions: Option<u32>) -> Value {
        gemini::write_embed(model, texts, dimensions)
    }

    fn read_embeddings(&self, body: &Value) -> Option<Embeddings> {
        gemini::read_embeddings(body)
    }
}

/// Begins a step and reads what it holds already: everything if the answer came at once.
fn begin_step(step: &Value, index: Option<u64>, answer: &mut Answer) {
    answer.parts.separate();
    match text(step, "type") {
        "model_output" => {
            for part in step["content"].as_array().into_iter().flatten() {
                match text(part, "type") {
                    "text" => {
                        answer.say(text(part, "text"));
                        add_fields(rest(part, &["text", "type"]), answer);
                    }
                    _ => answer.parts.add_native(INTERFACE, part.clone()),
                }
            }
        }
        "thought" => {
            for part in step["summary"].as_array().into_iter().flatten() {
                answer.think(text(part, "text"));
            }
            sign(text(step, "signature"), answer);
        }
        "function_call" => {
            answer.begin_call(index, text(step, "id"), text(step, "name"));
            // A stream begins with empty arguments and sends them in pieces.
            if step["arguments"].as_object().is_some_and(|fields| !fields.is_empty()) {
                let place = answer.parts.newest();
                answer.parts.write_arguments(place, &step["arguments"].to_string());
            }
            add_fields(rest(step, &["arguments", "id", "name", "type"]), answer);
        }
        _ => answer.parts.open_native(INTERFACE, step.clone(), index),
    }
}

fn add_fields(fields: Map<String, Value>, answer: &mut Answer) {
    let (place, delta) = (answer.parts.newest(), json!(fields));
    answer.parts.add_fields(place, INTERFACE, fields, &delta);
}

/// Adds a signature to the current reasoning part and marks it as this interface's: no other
/// accepts it.
fn sign(signature: &str, answer: &mut Answer) {
    if !signature.is_empty() {
        answer.parts.sign(signature);
        let fields = Map::from_iter([("signature".to_owned(), json!(signature))]);
        answer.parts.add_fields(answer.parts.newest(), INTERFACE, fields, &Value::Null);
    }
}

fn read_delta(delta: &Value, index: Option<u64>, answer: &mut Answer) {
    let place = answer.parts.keyed(index).or(answer.parts.newest());
    match text(delta, "type") {
        "text" => answer.say(text(delta, "text")),
        "thought_summary" => answer.think(text(&delta["content"], "text")),
        "thought_signature" => sign(text(delta, "signature"), answer),
        "arguments_delta" => answer.write_arguments(place, text(delta, "arguments")),
        _ => answer.parts.add_fields(place, INTERFACE, rest(delta, &["type"]), delta),
    }
}

/// Reads the final interaction object: usage and finish reason.
fn read_end(interaction: &Value, answer: &mut Answer) -> Result<(), ReadError> {
    answer.count(&interaction["usage"]);
    match text(interaction, "status") {
        "completed" => answer.finish(Some("stop"), "completed"),
        "requires_action" => answer.finish(Some("tool_calls"), "requires_action"),
        "incomplete" => answer.finish(Some("length"), "incomplete"),
        // The error has no HTTP status of its own; 503 makes it retryable unless its code says
        // otherwise.
        "failed" => return Err(refused(503, &interaction["error"])),
        status @ ("cancelled" | "budget_exceeded") => answer.finish(None, status),
        _ => return Err(ReadError::Malformed("it ended in no known status")),
    }
    answer.end();
    Ok(())
}

/// Returns the instructions before the conversation as one text.
fn system(request: &ChatRequest) -> Option<Value> {
    let (leading, _) = split_system(&request.messages);
    let texts = leading.iter().flat_map(|message| &message.parts).filter_map(|part| match part {
        Part::Text(TextPart { text, .. }) => Some(text.as_str()),
        _ => None,
    });
    let texts: Vec<&str> = request.system.as_deref().into_iter().chain(texts).collect();
    (!texts.is_empty()).then(|| json!(texts.join("\n\n")))
}

fn format(request: &ChatRequest) -> Option<Value> {
    let mut format = json!({"type": "text", "mime_type": "application/json"});
    put(&mut format, [("schema", request.schema.clone())]);
    (request.schema.is_some() || request.json_object).then_some(format)
}

fn tool(tool: &ToolSpec) -> Value {
    let mut object = json!({"type": "function", "name": tool.name, "parameters": tool.parameters});
    put(&mut object, [("description", description(&tool.description))]);
    NativeFields::write(tool.native.as_ref(), INTERFACE, &mut object);
    object
}

/// Writes a message as steps in their order: tool calls, results and reasoning are steps of their
/// own and split the content.
fn add_steps(message: &Message, steps: &mut Vec<Value>) {
    let kind = if message.role == Role::Assistant { "model_output" } else { "user_input" };
    let mut content: Vec<Value> = Vec::new();
    let end = |content: &mut Vec<Value>, steps: &mut Vec<Value>| {
        if !content.is_empty() {
            let mut step = json!({"type": kind, "content": std::mem::take(content)});
            NativeFields::write(message.native.as_ref(), INTERFACE, &mut step);
            steps.push(step);
        }
    };
    for part in &message.parts {
        if let Some(step) = step(part) {
            end(&mut content, steps);
            steps.push(step);
        } else {
            content.extend(block(part));
        }
    }
    end(&mut content, steps);
}

/// Writes a part that is a step of its own.
fn step(part: &Part) -> Option<Value> {
    let (mut step, native) = match part {
        Part::ToolCall(call) => {
            let step = json!({"type": "function_call", "id": call.id, "name": call.name,
                "arguments": arguments(&call.arguments)});
            (step, &call.native)
        }
        Part::ToolResult(result) => {
            // A list only if there is more than text.
            let value = match result.parts.as_slice() {
                [] => json!(result.text),
                parts => parts.iter().filter_map(block).collect(),
            };
            let step = json!({"type": "function_result", "call_id": result.id,
                "name": result.name, "result": value, "is_error": result.is_error});
            (step, &result.native)
        }
        Part::Thinking(thinking) => {
            let mut step = json!({"type": "thought", "signature": thinking.signature});
            if !thinking.text.is_empty() {
                step["summary"] = json!([{"type": "text", "text": thinking.text}]);
            }
            (step, &thinking.native)
        }
        Part::Native(native) => return Some(native.block.clone()),
        _ => return None,
    };
    NativeFields::write(native.as_ref(), INTERFACE, &mut step);
    Some(step)
}

/// Writes a part of a step's content; `None` for an empty text.
fn block(part: &Part) -> Option<Value> {
    let (mut block, native) = match part {
        Part::Text(TextPart { text, .. }) | Part::Refusal(RefusalPart { text, .. })
            if text.is_empty() =>
        {
            return None;
        }
        Part::Text(TextPart { text, native, .. }) => {
            (json!({"type": "text", "text": text}), native)
        }
        Part::Refusal(RefusalPart { text, .. }) => (json!({"type": "text", "text": text}), &None),
        Part::Image(part) => {
            let block = json!({"type": "image", "mime_type": part.media_type, "data": part.data});
            (block, &part.native)
        }
        Part::ImageUrl(part) => (json!({"type": "image", "uri": part.url}), &part.native),
        Part::File(file) => (document(file), &file.native),
        Part::Native(native) => return Some(native.block.clone()),
        Part::Audio(_) | Part::ToolCall(_) | Part::ToolResult(_) | Part::Thinking(_) => {
            return None;
        }
    };
    NativeFields::write(native.as_ref(), INTERFACE, &mut block);
    Some(block)
}

fn document(file: &FilePart) -> Value {
    let kind = || json!({"type": "document", "mime_type": file.media_type});
    let (name, value) = match (&file.data, &file.text, &file.url) {
        (Some(data), ..) => ("data", data),
        (None, None, Some(url)) => ("uri", url),
        (None, text, _) => {
            return json!({"type": "text", "text": text.as_deref().unwrap_or("")});
        }
    };
    let mut document = kind();
    document[name] = json!(value);
    document
}

fn choice(request: &ChatRequest) -> Option<Value> {
    match &request.tool_choice {
        _ if !has_tools(request) => None,
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Required => Some(json!("any")),
        ToolChoice::Named(name) => Some(json!({"allowed_tools": {"mode": "any", "tools": [name]}})),
    }
}
