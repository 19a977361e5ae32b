//! Ollama's native interface. Unlike its OpenAI-compatible routes it refuses a prompt that is too
//! long instead of cutting it.

use convergio_domain::chat::{
    ChatField, ChatRequest, Interface, Part, RefusalPart, Role, TextPart, ToolSpec,
};
use convergio_domain::metering::{Meter, Usage};
use serde_json::{Value, json};

use super::{
    Dialect, Embeddings, ReadError, arguments, arguments_text, description, put, put_extra,
    refuse_errors, text, tools_of, vectors,
};
use crate::model::answer::{Answer, UsageReader};
use crate::model::provider_traits::ProviderTraits;
use crate::model::usage;

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
pub(super) struct Native;

impl Dialect for Native {
    fn interface(&self) -> Interface {
        Interface::Ollama
    }

    fn chat_path(&self, _model: &str, _is_stream: bool) -> String {
        "/api/chat".to_owned()
    }

    fn write(&self, request: &ChatRequest, traits: &ProviderTraits) -> Value {
        let option = |field| request.options.get(&field).cloned();
        let mut options = json!({});
        put(
            &mut options,
            [
                ("num_predict", request.max_tokens.map(|value| json!(value))),
                ("temperature", request.temperature.map(|value| json!(value))),
                ("top_p", request.top_p.map(|value| json!(value))),
                ("top_k", option(ChatField::TopK)),
                ("min_p", option(ChatField::MinP)),
                ("seed", request.seed.map(|value| json!(value))),
                ("stop", (!request.stop.is_empty()).then(|| json!(request.stop))),
                ("frequency_penalty", option(ChatField::FrequencyPenalty)),
                ("presence_penalty", option(ChatField::PresencePenalty)),
            ],
        );
        // `truncate: false` is what makes it refuse prompts longer than the context.
        let mut body = json!({"model": request.model, "messages": messages(request),
            "stream": traits.is_stream(), "truncate": false, "options": options});
        // A schema is the stronger form of the same field.
        let format = || request.json_object.then(|| json!("json"));
        put(
            &mut body,
            [
                ("format", request.schema.clone().or_else(format)),
                ("think", request.effort.as_deref().map(think)),
                ("tools", tools_of(request, tool)),
            ],
        );
        put_extra(&mut body, request);
        body
    }

    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(piece)?;
        if !piece["message"].is_object() && piece["done"] != json!(true) {
            return Err(ReadError::Malformed("a line has no message"));
        }
        let message = &piece["message"];
        answer.think(text(message, "thinking"));
        answer.say(text(message, "content"));
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            take_call(call, answer);
        }
        answer.name(&piece["model"]);
        if piece["done"] == json!(true) {
            let counts = COUNTS.iter().filter_map(|name| Some((*name, piece.get(*name)?.clone())));
            answer.count(&counts.map(|(name, value)| (name.to_owned(), value)).collect());
            let reason = text(piece, "done_reason");
            let known = match reason {
                "stop" | "" => Some("stop"),
                "length" => Some("length"),
                _ => None,
            };
            answer.finish(known, reason);
            answer.end();
        }
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        self.read_piece(body, answer)
    }

    fn usage(&self) -> UsageReader {
        usage::from_ollama
    }

    fn embed_path(&self, _model: &str) -> Option<String> {
        Some("/api/embed".to_owned())
    }

    fn write_embed(&self, model: &str, texts: &[String], dimensions: Option<u32>) -> Value {
        let mut body = json!({"model": model, "input": texts, "truncate": false});
        put(&mut body, [("dimensions", dimensions.map(Value::from))]);
        body
    }

    fn read_embeddings(&self, body: &Value) -> Option<Embeddings> {
        let vectors = vectors(body["embeddings"].as_array()?.iter())?;
        let tokens = body["prompt_eval_count"].as_u64();
        let usage = tokens.map(|tokens| Usage([(Meter::InFresh, tokens)].into()));
        Some(Embeddings { vectors, usage })
    }
}

/// Converts an effort: `none` switches reasoning off.
fn think(effort: &str) -> Value {
    if effort == "none" { json!(false) } else { json!(effort) }
}

fn tool(tool: &ToolSpec) -> Value {
    let mut function = json!({"name": tool.name, "parameters": tool.parameters});
    put(&mut function, [("description", description(&tool.description))]);
    json!({"type": "function", "function": function})
}

fn take_call(call: &Value, answer: &mut Answer) {
    let function = &call["function"];
    let arguments = arguments_text(&function["arguments"]);
    // Calls carry no id unless the server gives one: the parts generate it.
    answer.call(text(call, "id"), text(function, "name"), &arguments);
}

/// Writes the messages. Each tool result becomes a message of its own; pictures from results follow
/// after all of them.
fn messages(request: &ChatRequest) -> Vec<Value> {
    let mut messages = Vec::new();
    if let Some(system) = &request.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    let mut pictures: Vec<Value> = Vec::new();
    for message in &request.messages {
        let mut turn = Turn::default();
        for part in &message.parts {
            match part {
                Part::ToolResult(result) => {
                    messages.push(json!({"role": "tool", "tool_name": result.name,
                        "tool_call_id": result.id, "content": result.all_text()}));
                    let mut shown = Turn::default();
                    let parts = result.parts.iter().filter(|part| !matches!(part, Part::Text(_)));
                    parts.for_each(|part| shown.add(part));
                    pictures.append(&mut shown.images);
                    turn.texts.append(&mut shown.texts);
                }
                part => turn.add(part),
            }
        }
        if turn.is_empty() {
            continue;
        }
        if message.role == Role::User {
            // Pictures of tool results join the user's message if one follows, in the order of the
            // conversation.
            turn.images.splice(0..0, std::mem::take(&mut pictures));
        } else {
            messages.extend(shown(std::mem::take(&mut pictures)));
        }
        messages.push(turn.write(message.role));
    }
    messages.extend(shown(pictures));
    messages
}

/// Returns a user message with the pictures that tools returned, if there are any.
fn shown(pictures: Vec<Value>) -> Option<Value> {
    (!pictures.is_empty()).then(|| json!({"role": "user", "content": "", "images": pictures}))
}

/// The content of a message apart from its tool results.
#[derive(Default)]
struct Turn {
    texts: Vec<String>,
    images: Vec<Value>,
    calls: Vec<Value>,
    thought: String,
}

impl Turn {
    fn is_empty(&self) -> bool {
        let Self { texts, images, calls, thought } = self;
        texts.is_empty() && images.is_empty() && calls.is_empty() && thought.is_empty()
    }

    fn add(&mut self, part: &Part) {
        match part {
            Part::Text(TextPart { text, .. }) | Part::Refusal(RefusalPart { text, .. }) => {
                self.texts.push(text.clone());
            }
            Part::Image(part) => self.images.push(json!(part.data)),
            // Ollama fetches nothing: the URL is given as text in place of the picture.
            Part::ImageUrl(part) => self.texts.push(part.url.clone()),
            Part::ToolCall(call) => self.calls.push(json!({"id": call.id,
                "function": {"name": call.name, "arguments": arguments(&call.arguments)}})),
            Part::Thinking(part) => self.thought.push_str(&part.text),
            Part::File(_) | Part::Audio(_) | Part::ToolResult(_) | Part::Native(_) => {}
        }
    }

    fn write(self, role: Role) -> Value {
        let role = match role {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::System | Role::Developer => "system",
        };
        let mut object = json!({"role": role, "content": self.texts.join("\n")});
        put(
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
