//! OpenAI's responses. Requests and replies are in the log, so an earlier response is read from
//! there.
//!
//! - `read`: requests. `write`: replies. `items`: earlier conversations as items. `ids`: the ids
//!   that lead back to a run. `tables`: the declared fields.
//!
//! `read` and `write` do not know each other; this file renders streams with the pieces of `write`.

mod ids;
mod items;
mod read;
pub(super) mod tables;
mod write;

use convergio_domain::chat::{ChatReply, ChatRequest, Part, TextPart, ThinkingPart};
use serde_json::{Value, json};

use super::forms::Form;
use super::known::{Fields, Path};
use super::progress::{PartEvent, PartStart};
use super::refusal::Refusal;
use super::stored::StoredRun;
use super::turn::{CallFailure, Head};
use super::{Answered, Door, DoorRequest, Event};
pub(super) use ids::run_of_response;
pub(super) use items::input_items;

/// Request fields that a response repeats.
const ECHO: [&str; 17] = [
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "truncation",
];

/// A call in the format of responses.
pub(super) struct Responses {
    model: String,
    streams: bool,
    run: String,
    created: u64,
    /// Events so far; their sequence number.
    events: u64,
    /// Items so far, and parts of the reply. They differ: a part with foreign fields makes two
    /// items.
    items: usize,
    parts: usize,
    /// True if the open thought has text, so that its summary part was announced.
    is_thought: bool,
    /// Fields that every response repeats.
    echo: Value,
    left_out: Vec<String>,
}

/// Reads a request without creating a call; returns it with the names of dropped fields.
pub(super) fn read_request(asked: &DoorRequest<'_>) -> Result<(ChatRequest, Value), Refusal> {
    let (body, extra) = asked.fields(&tables::BODY)?;
    if let Some(options) = body.get("stream_options") {
        Fields::read(options, Path::ROOT.field("stream_options"), &tables::STREAM_OPTIONS)?;
    }
    let mut request = read::request(&body, asked.stored)?;
    request.extra_body = extra;
    let left_out: Vec<&str> = body.left_out().collect();
    Ok((request, json!(left_out)))
}

/// Returns the fields that a response repeats: the request's values, or the API's defaults.
fn echo_of(body: &Value) -> Value {
    let mut echo = json!({"instructions": null, "max_output_tokens": null, "metadata": {},
        "parallel_tool_calls": true, "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null}, "store": true, "temperature": null,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": null,
        "truncation": "disabled", "background": false});
    for name in ECHO.iter().chain(&["user"]) {
        if !body[*name].is_null() {
            echo[*name] = body[*name].clone();
        }
    }
    // `text` without `format`, as with verbosity only.
    if echo["text"]["format"].is_null() {
        echo["text"]["format"] = json!({"type": "text"});
    }
    echo
}

/// Builds a response that has no output yet.
fn frame(echo: &Value, run: &str, created: u64, model: &str) -> Value {
    let mut response = echo.clone();
    let fields = json!({"id": ids::response(run), "object": "response", "created_at": created,
        "status": "in_progress", "model": model, "output": [], "error": null,
        "incomplete_details": null, "usage": null});
    if let (Value::Object(all), Value::Object(fields)) = (&mut response, fields) {
        all.extend(fields);
    }
    response
}

/// Builds a response that has ended.
fn finished(echo: &Value, run: &str, created: u64, model: &str, reply: &ChatReply) -> Value {
    let mut response = frame(echo, run, created, model);
    let (status, details) = write::status(reply);
    response["status"] = json!(status);
    response["incomplete_details"] = details;
    response["output"] = write::output(run, reply);
    response["usage"] = write::usage(&reply.usage);
    if let Some(tier) = &reply.service_tier {
        response["service_tier"] = json!(tier);
    }
    response
}

/// Renders an earlier response.
pub(super) fn stored_response(run: &str, stored: &StoredRun) -> Value {
    // A run without a stored echo shows the API's defaults.
    let echo =
        if stored.echo["tools"].is_array() { stored.echo.clone() } else { echo_of(&json!({})) };
    finished(&echo, run, stored.created, &stored.reply.model, &stored.reply)
}

impl Responses {
    fn event(&mut self, name: &'static str, mut data: Value) -> Event {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.events);
        self.events += 1;
        Event::named(name, &data)
    }

    /// Builds an event of the open item.
    fn item_event(&mut self, name: &'static str, id: &str, data: Value) -> Event {
        let mut data = data;
        data["item_id"] = json!(id);
        data["output_index"] = json!(self.items);
        self.event(name, data)
    }

    fn added(&mut self, item: &Value) -> Event {
        self.event("response.output_item.added", json!({"output_index": self.items, "item": item}))
    }

    fn done(&mut self, item: &Value) -> Event {
        let done = self
            .event("response.output_item.done", json!({"output_index": self.items, "item": item}));
        // The item is complete, so the next one gets the next index.
        self.items += 1;
        done
    }

    /// Builds the open part without content, for its first event.
    fn blank(start: &PartStart) -> Part {
        match start {
            PartStart::Text => Part::text(""),
            PartStart::Thinking => Part::Thinking(ThinkingPart::default()),
            PartStart::Refusal => Part::Refusal(convergio_domain::chat::RefusalPart::default()),
            PartStart::ToolCall { id, name } => Part::ToolCall(convergio_domain::chat::ToolCall {
                id: id.clone(),
                name: name.clone(),
                ..Default::default()
            }),
            PartStart::Whole(part) => (**part).clone(),
        }
    }

    fn begin_part(&mut self, start: &PartStart) -> Vec<Event> {
        self.is_thought = false;
        let part = Self::blank(start);
        // The id depends on the kind of part and its index only, so all events of an item agree on
        // it.
        let mut item = write::item(&self.run, self.parts, &part);
        let id = item["id"].as_str().unwrap_or_default().to_owned();
        match start {
            PartStart::Whole(_) => return vec![self.added(&item)],
            PartStart::Text | PartStart::Refusal => item["content"] = json!([]),
            PartStart::ToolCall { .. } => item["arguments"] = json!(""),
            PartStart::Thinking => {}
        }
        item["status"] = json!("in_progress");
        let mut events = vec![self.added(&item)];
        if matches!(start, PartStart::Text | PartStart::Refusal) {
            let part = write::content_part(&part);
            let data = json!({"content_index": 0, "part": part});
            events.push(self.item_event("response.content_part.added", &id, data));
        }
        events
    }

    fn piece(&mut self, open: &PartStart, text: &str) -> Vec<Event> {
        let id = write::item_id(&self.run, self.parts, &Self::blank(open));
        let (name, data) = match open {
            PartStart::Text => (
                "response.output_text.delta",
                json!({"content_index": 0, "delta": text, "logprobs": []}),
            ),
            PartStart::Refusal => {
                ("response.refusal.delta", json!({"content_index": 0, "delta": text}))
            }
            PartStart::ToolCall { .. } => {
                ("response.function_call_arguments.delta", json!({"delta": text}))
            }
            PartStart::Thinking => return self.thought(&id, text),
            PartStart::Whole(_) => return Vec::new(),
        };
        vec![self.item_event(name, &id, data)]
    }

    fn thought(&mut self, id: &str, text: &str) -> Vec<Event> {
        let mut events = Vec::new();
        // The summary part is announced with its first text: many thoughts have none.
        if !std::mem::replace(&mut self.is_thought, true) {
            let part = json!({"type": "summary_text", "text": ""});
            let data = json!({"summary_index": 0, "part": part});
            events.push(self.item_event("response.reasoning_summary_part.added", id, data));
        }
        let data = json!({"summary_index": 0, "delta": text});
        events.push(self.item_event("response.reasoning_summary_text.delta", id, data));
        events
    }

    fn end_part(&mut self, part: &Part) -> Vec<Event> {
        let item = write::item(&self.run, self.parts, part);
        let id = item["id"].as_str().unwrap_or_default().to_owned();
        let mut events = Vec::new();
        match part {
            Part::Text(TextPart { text, .. }) => {
                let content = write::content_part(part);
                for (place, annotation) in
                    content["annotations"].as_array().into_iter().flatten().enumerate()
                {
                    let data = json!({"content_index": 0, "annotation_index": place,
                        "annotation": annotation});
                    let name = "response.output_text.annotation.added";
                    events.push(self.item_event(name, &id, data));
                }
                let data = json!({"content_index": 0, "text": text,
                    "logprobs": content["logprobs"]});
                events.push(self.item_event("response.output_text.done", &id, data));
                let data = json!({"content_index": 0, "part": content});
                events.push(self.item_event("response.content_part.done", &id, data));
            }
            Part::Refusal(refusal) => {
                let data = json!({"content_index": 0, "refusal": refusal.text});
                events.push(self.item_event("response.refusal.done", &id, data));
                let data = json!({"content_index": 0, "part": write::content_part(part)});
                events.push(self.item_event("response.content_part.done", &id, data));
            }
            Part::Thinking(thinking) if self.is_thought => {
                let data = json!({"summary_index": 0, "text": thinking.text});
                events.push(self.item_event("response.reasoning_summary_text.done", &id, data));
                let part = json!({"type": "summary_text", "text": thinking.text});
                let data = json!({"summary_index": 0, "part": part});
                events.push(self.item_event("response.reasoning_summary_part.done", &id, data));
            }
            Part::ToolCall(call) => {
                let data = json!({"arguments": super::arguments(call), "name": call.name});
                let name = "response.function_call_arguments.done";
                events.push(self.item_event(name, &id, data));
            }
            _ => {}
        }
        events.push(self.done(&item));
        // Fields of another interface follow in an item of their own, which clients send back
        // unread.
        if let Some(item) = write::fields_item(&self.run, self.parts, part) {
            events.push(self.added(&item));
            events.push(self.done(&item));
        }
        self.parts += 1;
        events
    }
}

impl Door for Responses {
    const FORM: Form = Form::OpenAi;

    fn references(body: &Value) -> Vec<&str> {
        items::references(body)
    }

    fn read(asked: &DoorRequest<'_>) -> Result<(ChatRequest, Self), Refusal> {
        let (request, left_out) = read_request(asked)?;
        let left_out = left_out.as_array().into_iter().flatten();
        let door = Self {
            model: request.model.clone(),
            streams: asked.body["stream"].as_bool().unwrap_or(false),
            run: String::new(),
            created: super::now(),
            events: 0,
            items: 0,
            parts: 0,
            is_thought: false,
            echo: echo_of(asked.body),
            left_out: left_out.filter_map(Value::as_str).map(str::to_owned).collect(),
        };
        Ok((request, door))
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }

    fn echo(&self) -> Value {
        self.echo.clone()
    }

    fn whole(&self, answered: &Answered<'_>) -> Value {
        finished(&self.echo, answered.run, self.created, answered.model, answered.reply)
    }

    fn begin(&mut self, run: &str, head: &Head) -> Vec<Event> {
        run.clone_into(&mut self.run);
        if !head.model.is_empty() {
            head.model.clone_into(&mut self.model);
        }
        let response = frame(&self.echo, run, self.created, &self.model);
        vec![
            self.event("response.created", json!({"response": response})),
            self.event("response.in_progress", json!({"response": response})),
        ]
    }

    fn part(&mut self, open: &PartStart, event: &PartEvent) -> Vec<Event> {
        match event {
            PartEvent::Begin(start) => self.begin_part(start),
            PartEvent::Piece(text) => self.piece(open, text),
            PartEvent::Native(..) => Vec::new(),
            PartEvent::End(part) => self.end_part(part),
        }
    }

    fn end(&mut self, reply: &ChatReply) -> Vec<Event> {
        let response = finished(&self.echo, &self.run, self.created, &self.model, reply);
        let name = match write::status(reply).0 {
            "incomplete" => "response.incomplete",
            _ => "response.completed",
        };
        let mut events = Vec::new();
        if let Some(item) = write::message_item(&self.run, reply) {
            events.push(self.added(&item));
            events.push(self.done(&item));
        }
        events.push(self.event(name, json!({"response": response})));
        events
    }

    fn broken(&mut self, failure: &CallFailure) -> Event {
        let CallFailure { code, text, param, .. } = failure;
        let error = Form::OpenAi.error(code, text, param.as_deref(), &self.run);
        let error = error["error"].clone();
        self.event("error", error)
    }
}
