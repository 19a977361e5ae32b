//! Google's interactions, the newer interface of Gemini, used without storage at the provider.

use convergio_domain::chat::{
    ChatInterface, ChatMessage, ChatRequest, ChatToolSpec, FilePart, MessagePart, MessageRole,
    NativeFields, RefusalPart, TextPart, ToolChoice,
};
use serde_json::{Map, Value, json};

use super::gemini;
use super::json_fields::{
    arguments_object, description_value, has_tools, put_extra_body, put_present, split_system,
    text_field, unknown_fields, write_tools,
};
use super::wire_format::{Dialect, Embeddings, ReadError, check_error, refusal_without_status};
use crate::provider::answer::{AnswerBuilder, UsageReader};
use crate::provider::provider_traits::ProviderTraits;
use crate::provider::usage;

const INTERFACE: ChatInterface = ChatInterface::GeminiInteractions;

/// The dialect of Google's interactions.
pub(super) struct InteractionsDialect;

impl Dialect for InteractionsDialect {
    fn wire_interface(&self) -> ChatInterface {
        INTERFACE
    }

    fn chat_path(&self, _model: &str, _is_stream: bool) -> String {
        "/interactions".to_owned()
    }

    fn write_request(&self, request: &ChatRequest, traits: &ProviderTraits) -> Value {
        let mut generation = json!({});
        put_present(
            &mut generation,
            [
                ("max_output_tokens", request.max_tokens.map(|value| json!(value))),
                ("temperature", request.temperature.map(|value| json!(value))),
                ("top_p", request.top_p.map(|value| json!(value))),
                ("seed", request.seed.map(|value| json!(value))),
                ("stop_sequences", (!request.stop.is_empty()).then(|| json!(request.stop))),
                ("thinking_level", request.effort.as_ref().map(|value| json!(value))),
                ("tool_choice", tool_choice(request)),
            ],
        );
        let (_, messages) = split_system(&request.messages);
        let mut input = Vec::new();
        messages.iter().for_each(|message| add_steps(message, &mut input));
        let mut body = json!({"model": request.model, "input": input, "store": false,
            "generation_config": generation});
        put_present(
            &mut body,
            [
                ("stream", traits.is_stream().then_some(json!(true))),
                ("system_instruction", system_instruction(request)),
                ("response_format", response_format(request)),
                ("tools", write_tools(request, write_tool)),
            ],
        );
        put_extra_body(&mut body, request);
        body
    }

    fn read_piece(&self, piece: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
        let index = piece["index"].as_u64();
        match text_field(piece, "event_type") {
            "step.start" => begin_step(&piece["step"], index, answer),
            "step.delta" => read_delta(&piece["delta"], index, answer),
            "step.stop" => {
                let place = answer.parts.index_of_key(index);
                answer.parts.close_part_at(place);
            }
            "interaction.completed" => {
                answer.set_model(&piece["interaction"]["model"]);
                read_end(&piece["interaction"], answer)?;
            }
            "error" => return Err(refusal_without_status(503, &piece["error"])),
            _ => check_error(piece)?,
        }
        answer.set_model(&piece["interaction"]["model"]);
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
        check_error(body)?;
        let steps = body["steps"].as_array().ok_or(ReadError::Malformed("it has no steps"))?;
        for step in steps {
            begin_step(step, None, answer);
            let place = answer.parts.newest_index();
            answer.parts.close_part_at(place);
        }
        answer.set_model(&body["model"]);
        read_end(body, answer)
    }

    fn usage_reader(&self) -> UsageReader {
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
fn begin_step(step: &Value, index: Option<u64>, answer: &mut AnswerBuilder) {
    answer.parts.force_new_part();
    match text_field(step, "type") {
        "model_output" => {
            for part in step["content"].as_array().into_iter().flatten() {
                match text_field(part, "type") {
                    "text" => {
                        answer.push_text(text_field(part, "text"));
                        add_fields(unknown_fields(part, &["text", "type"]), answer);
                    }
                    _ => answer.parts.add_native(INTERFACE, part.clone()),
                }
            }
        }
        "thought" => {
            for part in step["summary"].as_array().into_iter().flatten() {
                answer.push_thinking(text_field(part, "text"));
            }
            add_signature(text_field(step, "signature"), answer);
        }
        "function_call" => {
            answer.begin_tool_call(index, text_field(step, "id"), text_field(step, "name"));
            // A stream begins with empty arguments and sends them in pieces.
            if step["arguments"].as_object().is_some_and(|fields| !fields.is_empty()) {
                let place = answer.parts.newest_index();
                answer.parts.push_arguments(place, &step["arguments"].to_string());
            }
            add_fields(unknown_fields(step, &["arguments", "id", "name", "type"]), answer);
        }
        _ => answer.parts.open_native(INTERFACE, step.clone(), index),
    }
}

fn add_fields(fields: Map<String, Value>, answer: &mut AnswerBuilder) {
    let (place, delta) = (answer.parts.newest_index(), json!(fields));
    answer.parts.merge_native_fields(place, INTERFACE, fields, &delta);
}

/// Adds a signature to the current reasoning part and marks it as this interface's: no other
/// accepts it.
fn add_signature(signature: &str, answer: &mut AnswerBuilder) {
    if !signature.is_empty() {
        answer.parts.push_signature(signature);
        let fields = Map::from_iter([("signature".to_owned(), json!(signature))]);
        answer.parts.merge_native_fields(
            answer.parts.newest_index(),
            INTERFACE,
            fields,
            &Value::Null,
        );
    }
}

fn read_delta(delta: &Value, index: Option<u64>, answer: &mut AnswerBuilder) {
    let place = answer.parts.index_of_key(index).or(answer.parts.newest_index());
    match text_field(delta, "type") {
        "text" => answer.push_text(text_field(delta, "text")),
        "thought_summary" => answer.push_thinking(text_field(&delta["content"], "text")),
        "thought_signature" => add_signature(text_field(delta, "signature"), answer),
        "arguments_delta" => answer.push_arguments(place, text_field(delta, "arguments")),
        _ => answer.parts.merge_native_fields(
            place,
            INTERFACE,
            unknown_fields(delta, &["type"]),
            delta,
        ),
    }
}

/// Reads the final interaction object: usage and finish reason.
fn read_end(interaction: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
    answer.set_usage(&interaction["usage"]);
    match text_field(interaction, "status") {
        "completed" => answer.set_finish(Some("stop"), "completed"),
        "requires_action" => answer.set_finish(Some("tool_calls"), "requires_action"),
        "incomplete" => answer.set_finish(Some("length"), "incomplete"),
        // The error has no HTTP status of its own; 503 makes it retryable unless its code says
        // otherwise.
        "failed" => return Err(refusal_without_status(503, &interaction["error"])),
        status @ ("cancelled" | "budget_exceeded") => answer.set_finish(None, status),
        _ => return Err(ReadError::Malformed("it ended in no known status")),
    }
    answer.mark_ended();
    Ok(())
}

/// Returns the instructions before the conversation as one text.
fn system_instruction(request: &ChatRequest) -> Option<Value> {
    let (leading, _) = split_system(&request.messages);
    let texts = leading.iter().flat_map(|message| &message.parts).filter_map(|part| match part {
        MessagePart::Text(TextPart { text, .. }) => Some(text.as_str()),
        _ => None,
    });
    let texts: Vec<&str> = request.system.as_deref().into_iter().chain(texts).collect();
    (!texts.is_empty()).then(|| json!(texts.join("\n\n")))
}

fn response_format(request: &ChatRequest) -> Option<Value> {
    let mut format = json!({"type": "text", "mime_type": "application/json"});
    put_present(&mut format, [("schema", request.schema.clone())]);
    (request.schema.is_some() || request.json_object).then_some(format)
}

fn write_tool(tool: &ChatToolSpec) -> Value {
    let mut object = json!({"type": "function", "name": tool.name, "parameters": tool.parameters});
    put_present(&mut object, [("description", description_value(&tool.description))]);
    NativeFields::write_into(tool.native.as_ref(), INTERFACE, &mut object);
    object
}

/// Writes a message as steps in their order: tool calls, results and reasoning are steps of their
/// own and split the content.
fn add_steps(message: &ChatMessage, steps: &mut Vec<Value>) {
    let kind = if message.role == MessageRole::Assistant { "model_output" } else { "user_input" };
    let mut content: Vec<Value> = Vec::new();
    let flush_content = |content: &mut Vec<Value>, steps: &mut Vec<Value>| {
        if !content.is_empty() {
            let mut step = json!({"type": kind, "content": std::mem::take(content)});
            NativeFields::write_into(message.native.as_ref(), INTERFACE, &mut step);
            steps.push(step);
        }
    };
    for part in &message.parts {
        if let Some(step) = part_step(part) {
            flush_content(&mut content, steps);
            steps.push(step);
        } else {
            content.extend(content_block(part));
        }
    }
    flush_content(&mut content, steps);
}

/// Writes a part that is a step of its own.
fn part_step(part: &MessagePart) -> Option<Value> {
    let (mut step, native) = match part {
        MessagePart::ToolCall(call) => {
            let step = json!({"type": "function_call", "id": call.id, "name": call.name,
                "arguments": arguments_object(&call.arguments)});
            (step, &call.native)
        }
        MessagePart::ToolResult(result) => {
            // A list only if there is more than text.
            let value = match result.parts.as_slice() {
                [] => json!(result.text),
                parts => parts.iter().filter_map(content_block).collect(),
            };
            let step = json!({"type": "function_result", "call_id": result.id,
                "name": result.name, "result": value, "is_error": result.is_error});
            (step, &result.native)
        }
        MessagePart::Thinking(thinking) => {
            let mut step = json!({"type": "thought", "signature": thinking.signature});
            if !thinking.text.is_empty() {
                step["summary"] = json!([{"type": "text", "text": thinking.text}]);
            }
            (step, &thinking.native)
        }
        MessagePart::Native(native) => return Some(native.block.clone()),
        _ => return None,
    };
    NativeFields::write_into(native.as_ref(), INTERFACE, &mut step);
    Some(step)
}

/// Writes a part of a step's content; `None` for an empty text.
fn content_block(part: &MessagePart) -> Option<Value> {
    let (mut block, native) = match part {
        MessagePart::Text(TextPart { text, .. })
        | MessagePart::Refusal(RefusalPart { text, .. })
            if text.is_empty() =>
        {
            return None;
        }
        MessagePart::Text(TextPart { text, native, .. }) => {
            (json!({"type": "text", "text": text}), native)
        }
        MessagePart::Refusal(RefusalPart { text, .. }) => {
            (json!({"type": "text", "text": text}), &None)
        }
        MessagePart::Image(part) => {
            let block = json!({"type": "image", "mime_type": part.media_type, "data": part.data});
            (block, &part.native)
        }
        MessagePart::ImageUrl(part) => (json!({"type": "image", "uri": part.url}), &part.native),
        MessagePart::File(file) => (document_block(file), &file.native),
        MessagePart::Native(native) => return Some(native.block.clone()),
        MessagePart::Audio(_)
        | MessagePart::ToolCall(_)
        | MessagePart::ToolResult(_)
        | MessagePart::Thinking(_) => {
            return None;
        }
    };
    NativeFields::write_into(native.as_ref(), INTERFACE, &mut block);
    Some(block)
}

fn document_block(file: &FilePart) -> Value {
    let document_head = || json!({"type": "document", "mime_type": file.media_type});
    let (name, value) = match (&file.data, &file.text, &file.url) {
        (Some(data), ..) => ("data", data),
        (None, None, Some(url)) => ("uri", url),
        (None, text, _) => {
            return json!({"type": "text", "text": text.as_deref().unwrap_or("")});
        }
    };
    let mut document = document_head();
    document[name] = json!(value);
    document
}

fn tool_choice(request: &ChatRequest) -> Option<Value> {
    match &request.tool_choice {
        _ if !has_tools(request) => None,
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Required => Some(json!("any")),
        ToolChoice::Named(name) => Some(json!({"allowed_tools": {"mode": "any", "tools": [name]}})),
    }
}
