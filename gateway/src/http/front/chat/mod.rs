//! OpenAI's chat completions.
//!
//! - `read`: requests. `write`: replies. `tables`: the declared fields.
//!
//! `read` and `write` do not know each other; this file renders streams with the pieces of `write`.

mod read;
pub(super) mod tables;
mod write;

pub(super) use write::completion;

use convergio_domain::chat::{ChatReply, ChatRequest, NativeFields, Part};
use serde_json::{Value, json};

use super::forms::Form;
use super::known::{Fields, Path};
use super::progress::{PartEvent, PartStart};
use super::refusal::Refusal;
use super::turn::{CallFailure, Head};
use super::{Answered, Door, DoorRequest, Event};

/// A call in the format of chat completions.
pub(super) struct Completions {
    model: String,
    streams: bool,
    /// True if the stream ends with a usage chunk (`stream_options.include_usage`).
    counts: bool,
    /// Run id of the call; empty until the stream begins.
    run: String,
    created: u64,
    /// Tool calls so far; the index of the next one.
    calls: usize,
}

impl Completions {
    fn chunk(&self, delta: &Value, finish: Option<&str>) -> Event {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        Event::data(&self.frame(&json!([choice]), &Value::Null))
    }

    fn frame(&self, choices: &Value, usage: &Value) -> Value {
        let mut frame = json!({"id": write::id(&self.run), "object": "chat.completion.chunk",
            "created": self.created, "model": self.model, "choices": choices});
        // OpenAI sends `usage: null` in every chunk before the usage chunk, but only if it was
        // asked for.
        if self.counts {
            frame["usage"] = usage.clone();
        }
        frame
    }

    fn delta(&self, delta: &Value) -> Vec<Event> {
        vec![self.chunk(delta, None)]
    }

    fn begin_part(&mut self, start: &PartStart) -> Vec<Event> {
        let PartStart::ToolCall { id, name } = start else {
            return match start {
                PartStart::Whole(part) => self.whole_part(part),
                _ => Vec::new(),
            };
        };
        let call = json!({"index": self.calls, "id": id, "type": "function",
            "function": {"name": name, "arguments": ""}});
        self.calls += 1;
        self.delta(&json!({"tool_calls": [call]}))
    }

    /// Renders a part that arrives whole; parts without a place in this format travel at the end.
    fn whole_part(&mut self, part: &Part) -> Vec<Event> {
        let Some(mut call) = write::custom_call(part) else { return Vec::new() };
        call["index"] = json!(self.calls);
        self.calls += 1;
        self.delta(&json!({"tool_calls": [call]}))
    }

    fn piece(&self, start: &PartStart, text: &str) -> Vec<Event> {
        match start {
            PartStart::Text => self.delta(&json!({"content": text})),
            PartStart::Thinking => self.delta(&json!({"reasoning_content": text})),
            PartStart::Refusal => self.delta(&json!({"refusal": text})),
            PartStart::ToolCall { .. } => {
                let index = self.calls.saturating_sub(1);
                let call = json!({"index": index, "function": {"arguments": text}});
                self.delta(&json!({"tool_calls": [call]}))
            }
            PartStart::Whole(_) => Vec::new(),
        }
    }

    /// Renders the fields of a tool call that follow its arguments.
    fn end_part(&self, part: &Part) -> Vec<Event> {
        let Part::ToolCall(call) = part else { return Vec::new() };
        let fields = write::fields_of_call(call);
        if fields.is_empty() {
            return Vec::new();
        }
        let mut delta = Value::Object(fields);
        delta["index"] = json!(self.calls.saturating_sub(1));
        self.delta(&json!({"tool_calls": [delta]}))
    }
}

impl Door for Completions {
    const FORM: Form = Form::OpenAi;

    fn read(asked: &DoorRequest<'_>) -> Result<(ChatRequest, Self), Refusal> {
        let (body, extra) = asked.fields(&tables::BODY)?;
        let mut request = read::request(&body)?;
        request.extra_body = extra;
        let options = Path::ROOT.field("stream_options");
        let counts = match body.get("stream_options") {
            Some(value) => Fields::read(value, options, &tables::STREAM_OPTIONS)?
                .flag("include_usage")
                .unwrap_or(false),
            None => false,
        };
        let door = Self {
            model: request.model.clone(),
            streams: body.flag("stream").unwrap_or(false),
            counts,
            run: String::new(),
            created: super::now(),
            calls: 0,
        };
        Ok((request, door))
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn whole(&self, answered: &Answered<'_>) -> Value {
        write::completion(answered, self.created)
    }

    fn begin(&mut self, run: &str, head: &Head) -> Vec<Event> {
        run.clone_into(&mut self.run);
        if !head.model.is_empty() {
            head.model.clone_into(&mut self.model);
        }
        self.delta(&json!({"role": "assistant", "content": ""}))
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
        let mut events = Vec::new();
        let (message, top) = write::native_fields(reply);
        let details = write::details(reply, &message);
        let mut delta = message;
        if !details.is_empty() {
            delta.insert("reasoning_details".to_owned(), Value::Array(details));
        }
        if !delta.is_empty() {
            events.push(self.chunk(&Value::Object(delta), None));
        }
        let finish = write::finish(reply);
        let choice = json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": finish});
        let mut last = self.frame(&json!([choice]), &Value::Null);
        write::add_top(&mut last, reply, &top);
        events.push(Event::data(&last));
        if self.counts {
            events.push(Event::data(&self.frame(&json!([]), &write::usage(&reply.usage))));
        }
        // The end marker is text, not JSON.
        events.push(Event { name: None, data: "[DONE]".to_owned() });
        events
    }

    fn broken(&mut self, failure: &CallFailure) -> Event {
        let CallFailure { code, text, param, .. } = failure;
        Event::data(&Form::OpenAi.error(code, text, param.as_deref(), &self.run))
    }
}

/// Returns the native fields that only OpenAI's chat interface has.
fn own_fields(native: Option<&NativeFields>) -> serde_json::Map<String, Value> {
    let own =
        native.filter(|native| native.interface == convergio_domain::chat::Interface::OpenAiChat);
    own.map(|native| native.fields.clone()).unwrap_or_default()
}
