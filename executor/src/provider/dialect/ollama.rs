//! Ollama's native interface. Unlike its OpenAI-compatible routes it refuses a prompt that is too
//! long instead of cutting it.

use convergio_domain::billing::{Meter, Usage};
use convergio_domain::chat::{
    ChatField, ChatInterface, ChatRequest, ChatToolSpec, MessagePart, MessageRole, RefusalPart,
    TextPart,
};
use serde_json::{Value, json};

use super::json_fields::{
    arguments_object, arguments_text, description_value, parse_vectors, put_extra_body,
    put_present, text_field, write_tools,
};
use super::wire_format::{Dialect, Embeddings, ReadError, check_error};
use crate::provider::answer::{AnswerBuilder, UsageReader};
use crate::provider::provider_traits::ProviderTraits;
use crate::provider::usage;

/// Fields of the last line that hold counts and times.
const COUNTS: [&str; 6] = [
    "prompt_eval_count",
    "eval_count",
    "total_duration",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
];

/// The dialect of `/api/chat`.
pub(super) struct OllamaDialect;

impl Dialect for OllamaDialect {
    fn wire_interface(&self) -> ChatInterface {
        ChatInterface::Ollama
    }

    fn chat_path(&self, _model: &str, _is_stream: bool) -> String {
        "/api/chat".to_owned()
    }

    fn write_request(&self, request: &ChatRequest, traits: &ProviderTraits) -> Value {
        let option_value = |field| request.options.get(&field).cloned();
        let mut options = json!({});
        put_present(
            &mut options,
            [
                ("num_predict", request.max_tokens.map(|value| json!(value))),
                ("temperature", request.temperature.map(|value| json!(value))),
                ("top_p", request.top_p.map(|value| json!(value))),
                ("top_k", option_value(ChatField::TopK)),
                ("min_p", option_value(ChatField::MinP)),
                ("seed", request.seed.map(|value| json!(value))),
                ("stop", (!request.stop.is_empty()).then(|| json!(request.stop))),
                ("frequency_penalty", option_value(ChatField::FrequencyPenalty)),
                ("presence_penalty", option_value(ChatField::PresencePenalty)),
            ],
        );
        // `truncate: false` is what makes it refuse prompts longer than the context.
        let mut body = json!({"model": request.model, "messages": write_messages(request),
            "stream": traits.is_stream(), "truncate": false, "options": options});
        // A schema is the stronger form of the same field.
        let format = || request.json_object.then(|| json!("json"));
        put_present(
            &mut body,
            [
                ("format", request.schema.clone().or_else(format)),
                ("think", request.effort.as_deref().map(think_value)),
                ("tools", write_tools(request, write_tool)),
            ],
        );
        put_extra_body(&mut body, request);
        body
    }

    fn read_piece(&self, piece: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
        check_error(piece)?;
        if !piece["message"].is_object() && piece["done"] != json!(true) {
            return Err(ReadError::Malformed("a line has no message"));
        }
        let message = &piece["message"];
        answer.push_thinking(text_field(message, "thinking"));
        answer.push_text(text_field(message, "content"));
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            read_tool_call(call, answer);
        }
        answer.set_model(&piece["model"]);
        if piece["done"] == json!(true) {
            let counts = COUNTS.iter().filter_map(|name| Some((*name, piece.get(*name)?.clone())));
            answer.set_usage(&counts.map(|(name, value)| (name.to_owned(), value)).collect());
            let reason = text_field(piece, "done_reason");
            let finish = match reason {
                "stop" | "" => Some("stop"),
                "length" => Some("length"),
                _ => None,
            };
            answer.set_finish(finish, reason);
            answer.mark_ended();
        }
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
        self.read_piece(body, answer)
    }

    fn usage_reader(&self) -> UsageReader {
        usage::from_ollama
    }

    fn embed_path(&self, _model: &str) -> Option<String> {
        Some("/api/embed".to_owned())
    }

    fn write_embed(&self, model: &str, texts: &[String], dimensions: Option<u32>) -> Value {
        let mut body = json!({"model": model, "input": texts, "truncate": false});
        put_present(&mut body, [("dimensions", dimensions.map(Value::from))]);
        body
    }

    fn read_embeddings(&self, body: &Value) -> Option<Embeddings> {
        let vectors = parse_vectors(body["embeddings"].as_array()?.iter())?;
        let tokens = body["prompt_eval_count"].as_u64();
        let usage = tokens.map(|tokens| Usage([(Meter::InFresh, tokens)].into()));
        Some(Embeddings { vectors, usage })
    }
}

/// Converts an effort: `none` switches reasoning off.
fn think_value(effort: &str) -> Value {
    if effort == "none" { json!(false) } else { json!(effort) }
}

fn write_tool(tool: &ChatToolSpec) -> Value {
    let mut function = json!({"name": tool.name, "parameters": tool.parameters});
    put_present(&mut function, [("description", description_value(&tool.description))]);
    json!({"type": "function", "function": function})
}

fn read_tool_call(call: &Value, answer: &mut AnswerBuilder) {
    let function = &call["function"];
    let arguments = arguments_text(&function["arguments"]);
    // Calls carry no id unless the server gives one: the parts generate it.
    answer.push_tool_call(text_field(call, "id"), text_field(function, "name"), &arguments);
}

/// Writes the messages. Each tool result becomes a message of its own; pictures from results follow
/// after all of them.
fn write_messages(request: &ChatRequest) -> Vec<Value> {
    let mut messages = Vec::new();
    if let Some(system) = &request.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    let mut pictures: Vec<Value> = Vec::new();
    for message in &request.messages {
        let mut turn = OllamaTurn::default();
        for part in &message.parts {
            match part {
                MessagePart::ToolResult(result) => {
                    messages.push(json!({"role": "tool", "tool_name": result.name,
                        "tool_call_id": result.id, "content": result.all_text()}));
                    let mut result_content = OllamaTurn::default();
                    let parts =
                        result.parts.iter().filter(|part| !matches!(part, MessagePart::Text(_)));
                    parts.for_each(|part| result_content.add_part(part));
                    pictures.append(&mut result_content.images);
                    turn.texts.append(&mut result_content.texts);
                }
                part => turn.add_part(part),
            }
        }
        if turn.is_empty() {
            continue;
        }
        if message.role == MessageRole::User {
            // Pictures of tool results join the user's message if one follows, in the order of the
            // conversation.
            turn.images.splice(0..0, std::mem::take(&mut pictures));
        } else {
            messages.extend(pictures_message(std::mem::take(&mut pictures)));
        }
        messages.push(turn.write_message(message.role));
    }
    messages.extend(pictures_message(pictures));
    messages
}

/// Returns a user message with the pictures that tools returned, if there are any.
fn pictures_message(pictures: Vec<Value>) -> Option<Value> {
    (!pictures.is_empty()).then(|| json!({"role": "user", "content": "", "images": pictures}))
}

/// The content of a message apart from its tool results.
#[derive(Default)]
struct OllamaTurn {
    texts: Vec<String>,
    images: Vec<Value>,
    calls: Vec<Value>,
    thought: String,
}

impl OllamaTurn {
    fn is_empty(&self) -> bool {
        let Self { texts, images, calls, thought } = self;
        texts.is_empty() && images.is_empty() && calls.is_empty() && thought.is_empty()
    }

    fn add_part(&mut self, part: &MessagePart) {
        match part {
            MessagePart::Text(TextPart { text, .. })
            | MessagePart::Refusal(RefusalPart { text, .. }) => {
                self.texts.push(text.clone());
            }
            MessagePart::Image(part) => self.images.push(json!(part.data)),
            // Ollama fetches nothing: the URL is given as text in place of the picture.
            MessagePart::ImageUrl(part) => self.texts.push(part.url.clone()),
            MessagePart::ToolCall(call) => self.calls.push(json!({"id": call.id,
                "function": {"name": call.name, "arguments": arguments_object(&call.arguments)}})),
            MessagePart::Thinking(part) => self.thought.push_str(&part.text),
            MessagePart::File(_)
            | MessagePart::Audio(_)
            | MessagePart::ToolResult(_)
            | MessagePart::Native(_) => {}
        }
    }

    fn write_message(self, role: MessageRole) -> Value {
        let role = match role {
            MessageRole::User => "user",
            MessageRole::Assistant => "assistant",
            MessageRole::System | MessageRole::Developer => "system",
        };
        let mut object = json!({"role": role, "content": self.texts.join("\n")});
        put_present(
            &mut object,
            [
                ("images", (!self.images.is_empty()).then(|| json!(self.images))),
                ("tool_calls", (!self.calls.is_empty()).then(|| json!(self.calls))),
                ("thinking", (!self.thought.is_empty()).then(|| json!(self.thought))),
            ],
        );
        object
    }
}
