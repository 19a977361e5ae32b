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

use convergio_domain::chat::{ChatReply, ChatRequest, MessagePart, TextPart, ThinkingPart};
use serde_json::{Value, json};

use super::compat_run::ReplyHead;
use super::dialect::{
    CompatDialect, DialectEvent, DialectRequest, WholeReply, arguments_json, unix_seconds,
};
use super::error_format::ErrorFormat;
use super::field_table::{FieldPath, RequestFields};
use super::refusal::{CallFailure, CompatRefusal};
use super::reply_progress::{PartEvent, PartStart};
use super::stored_runs::StoredRun;
pub(super) use ids::run_of_response;
pub(super) use items::input_items;

/// Request fields that a response repeats.
const ECHOED_FIELDS: [&str; 17] = [
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
pub(super) struct CompatResponses {
    model: String,
    is_streaming: bool,
    run: String,
    created: u64,
    /// Events so far; their sequence number.
    event_count: u64,
    /// Items so far, and parts of the reply. They differ: a part with foreign fields makes two
    /// items.
    item_count: usize,
    part_count: usize,
    /// True if the open thought has text, so that its summary part was announced.
    has_summary: bool,
    /// Fields that every response repeats.
    echo: Value,
    left_out: Vec<String>,
}

/// Reads a request without creating a call; returns it with the names of dropped fields.
pub(super) fn read_chat_request(
    dialect_request: &DialectRequest<'_>,
) -> Result<(ChatRequest, Value), CompatRefusal> {
    let (body, extra) = dialect_request.read_fields(&tables::BODY)?;
    if let Some(options) = body.get("stream_options") {
        RequestFields::read_known(
            options,
            FieldPath::ROOT.field("stream_options"),
            &tables::STREAM_OPTIONS,
        )?;
    }
    let mut request = read::read_chat_body(&body, dialect_request.stored)?;
    request.extra_body = extra;
    let left_out: Vec<&str> = body.left_out().collect();
    Ok((request, json!(left_out)))
}

/// Returns the fields that a response repeats: the request's values, or the API's defaults.
fn echo_request_fields(body: &Value) -> Value {
    let mut echo = json!({"instructions": null, "max_output_tokens": null, "metadata": {},
        "parallel_tool_calls": true, "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null}, "store": true, "temperature": null,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": null,
        "truncation": "disabled", "background": false});
    for name in ECHOED_FIELDS.iter().chain(&["user"]) {
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
fn response_frame(echo: &Value, run: &str, created: u64, model: &str) -> Value {
    let mut response = echo.clone();
    let fields = json!({"id": ids::response_id(run), "object": "response", "created_at": created,
        "status": "in_progress", "model": model, "output": [], "error": null,
        "incomplete_details": null, "usage": null});
    if let (Value::Object(all), Value::Object(fields)) = (&mut response, fields) {
        all.extend(fields);
    }
    response
}

/// Builds a response that has ended.
fn finished_response(
    echo: &Value,
    run: &str,
    created: u64,
    model: &str,
    reply: &ChatReply,
) -> Value {
    let mut response = response_frame(echo, run, created, model);
    let (status, details) = write::response_status(reply);
    response["status"] = json!(status);
    response["incomplete_details"] = details;
    response["output"] = write::output_items(run, reply);
    response["usage"] = write::usage_json(&reply.usage);
    if let Some(tier) = &reply.service_tier {
        response["service_tier"] = json!(tier);
    }
    response
}

/// Renders an earlier response.
pub(super) fn stored_response(run: &str, stored: &StoredRun) -> Value {
    // A run without a stored echo shows the API's defaults.
    let echo = if stored.echo["tools"].is_array() {
        stored.echo.clone()
    } else {
        echo_request_fields(&json!({}))
    };
    finished_response(&echo, run, stored.created_seconds, &stored.reply.model, &stored.reply)
}

impl CompatResponses {
    fn next_event(&mut self, name: &'static str, mut data: Value) -> DialectEvent {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.event_count);
        self.event_count += 1;
        DialectEvent::from_named_data(name, &data)
    }

    /// Builds an event of the open item.
    fn item_event(&mut self, name: &'static str, id: &str, data: Value) -> DialectEvent {
        let mut data = data;
        data["item_id"] = json!(id);
        data["output_index"] = json!(self.item_count);
        self.next_event(name, data)
    }

    fn item_added(&mut self, item: &Value) -> DialectEvent {
        self.next_event(
            "response.output_item.added",
            json!({"output_index": self.item_count, "item": item}),
        )
    }

    fn item_done(&mut self, item: &Value) -> DialectEvent {
        let done = self.next_event(
            "response.output_item.done",
            json!({"output_index": self.item_count, "item": item}),
        );
        // The item is complete, so the next one gets the next index.
        self.item_count += 1;
        done
    }

    /// Builds the open part without content, for its first event.
    fn empty_part(start: &PartStart) -> MessagePart {
        match start {
            PartStart::Text => MessagePart::from_text(""),
            PartStart::Thinking => MessagePart::Thinking(ThinkingPart::default()),
            PartStart::Refusal => {
                MessagePart::Refusal(convergio_domain::chat::RefusalPart::default())
            }
            PartStart::ToolCall { id, name } => {
                MessagePart::ToolCall(convergio_domain::chat::ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    ..Default::default()
                })
            }
            PartStart::Whole(part) => (**part).clone(),
        }
    }

    fn begin_part(&mut self, start: &PartStart) -> Vec<DialectEvent> {
        self.has_summary = false;
        let part = Self::empty_part(start);
        // The id depends on the kind of part and its index only, so all events of an item agree on
        // it.
        let mut item = write::item_json(&self.run, self.part_count, &part);
        let id = item["id"].as_str().unwrap_or_default().to_owned();
        match start {
            PartStart::Whole(_) => return vec![self.item_added(&item)],
            PartStart::Text | PartStart::Refusal => item["content"] = json!([]),
            PartStart::ToolCall { .. } => item["arguments"] = json!(""),
            PartStart::Thinking => {}
        }
        item["status"] = json!("in_progress");
        let mut events = vec![self.item_added(&item)];
        if matches!(start, PartStart::Text | PartStart::Refusal) {
            let part = write::content_part(&part);
            let data = json!({"content_index": 0, "part": part});
            events.push(self.item_event("response.content_part.added", &id, data));
        }
        events
    }

    fn piece_events(&mut self, part_start: &PartStart, text: &str) -> Vec<DialectEvent> {
        let id = write::item_id(&self.run, self.part_count, &Self::empty_part(part_start));
        let (name, data) = match part_start {
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
            PartStart::Thinking => return self.summary_events(&id, text),
            PartStart::Whole(_) => return Vec::new(),
        };
        vec![self.item_event(name, &id, data)]
    }

    fn summary_events(&mut self, id: &str, text: &str) -> Vec<DialectEvent> {
        let mut events = Vec::new();
        // The summary part is announced with its first text: many thoughts have none.
        if !std::mem::replace(&mut self.has_summary, true) {
            let part = json!({"type": "summary_text", "text": ""});
            let data = json!({"summary_index": 0, "part": part});
            events.push(self.item_event("response.reasoning_summary_part.added", id, data));
        }
        let data = json!({"summary_index": 0, "delta": text});
        events.push(self.item_event("response.reasoning_summary_text.delta", id, data));
        events
    }

    fn end_part(&mut self, part: &MessagePart) -> Vec<DialectEvent> {
        let item = write::item_json(&self.run, self.part_count, part);
        let id = item["id"].as_str().unwrap_or_default().to_owned();
        let mut events = Vec::new();
        match part {
            MessagePart::Text(TextPart { text, .. }) => {
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
            MessagePart::Refusal(refusal) => {
                let data = json!({"content_index": 0, "refusal": refusal.text});
                events.push(self.item_event("response.refusal.done", &id, data));
                let data = json!({"content_index": 0, "part": write::content_part(part)});
                events.push(self.item_event("response.content_part.done", &id, data));
            }
            MessagePart::Thinking(thinking) if self.has_summary => {
                let data = json!({"summary_index": 0, "text": thinking.text});
                events.push(self.item_event("response.reasoning_summary_text.done", &id, data));
                let part = json!({"type": "summary_text", "text": thinking.text});
                let data = json!({"summary_index": 0, "part": part});
                events.push(self.item_event("response.reasoning_summary_part.done", &id, data));
            }
            MessagePart::ToolCall(call) => {
                let data = json!({"arguments": arguments_json(call), "name": call.name});
                let name = "response.function_call_arguments.done";
                events.push(self.item_event(name, &id, data));
            }
            _ => {}
        }
        events.push(self.item_done(&item));
        // Fields of another interface follow in an item of their own, which clients send back
        // unread.
        if let Some(item) = write::foreign_fields_item(&self.run, self.part_count, part) {
            events.push(self.item_added(&item));
            events.push(self.item_done(&item));
        }
        self.part_count += 1;
        events
    }
}

impl CompatDialect for CompatResponses {
    const ERROR_FORMAT: ErrorFormat = ErrorFormat::OpenAi;

    fn referenced_runs(body: &Value) -> Vec<&str> {
        items::referenced_runs(body)
    }

    fn read_request(
        dialect_request: &DialectRequest<'_>,
    ) -> Result<(ChatRequest, Self), CompatRefusal> {
        let (request, left_out) = read_chat_request(dialect_request)?;
        let left_out = left_out.as_array().into_iter().flatten();
        let dialect = Self {
            model: request.model.clone(),
            is_streaming: dialect_request.body["stream"].as_bool().unwrap_or(false),
            run: String::new(),
            created: unix_seconds(),
            event_count: 0,
            item_count: 0,
            part_count: 0,
            has_summary: false,
            echo: echo_request_fields(dialect_request.body),
            left_out: left_out.filter_map(Value::as_str).map(str::to_owned).collect(),
        };
        Ok((request, dialect))
    }

    fn is_streaming(&self) -> bool {
        self.is_streaming
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }

    fn request_echo(&self) -> Value {
        self.echo.clone()
    }

    fn render_reply(&self, answered: &WholeReply<'_>) -> Value {
        finished_response(&self.echo, answered.run, self.created, answered.model, answered.reply)
    }

    fn render_start(&mut self, run: &str, head: &ReplyHead) -> Vec<DialectEvent> {
        run.clone_into(&mut self.run);
        if !head.model.is_empty() {
            head.model.clone_into(&mut self.model);
        }
        let response = response_frame(&self.echo, run, self.created, &self.model);
        vec![
            self.next_event("response.created", json!({"response": response})),
            self.next_event("response.in_progress", json!({"response": response})),
        ]
    }

    fn render_part(&mut self, part_start: &PartStart, event: &PartEvent) -> Vec<DialectEvent> {
        match event {
            PartEvent::Begin(start) => self.begin_part(start),
            PartEvent::Piece(text) => self.piece_events(part_start, text),
            PartEvent::Native(..) => Vec::new(),
            PartEvent::End(part) => self.end_part(part),
        }
    }

    fn render_end(&mut self, reply: &ChatReply) -> Vec<DialectEvent> {
        let response = finished_response(&self.echo, &self.run, self.created, &self.model, reply);
        let name = match write::response_status(reply).0 {
            "incomplete" => "response.incomplete",
            _ => "response.completed",
        };
        let mut events = Vec::new();
        if let Some(item) = write::message_fields_item(&self.run, reply) {
            events.push(self.item_added(&item));
            events.push(self.item_done(&item));
        }
        events.push(self.next_event(name, json!({"response": response})));
        events
    }

    fn render_failure(&mut self, failure: &CallFailure) -> DialectEvent {
        let CallFailure { code, text, param, .. } = failure;
        let error = ErrorFormat::OpenAi.error_body(code, text, param.as_deref(), &self.run);
        let error = error["error"].clone();
        self.next_event("error", error)
    }
}
