//! OpenAI's chat completions.
//!
//! - `read`: requests. `write`: replies. `tables`: the declared fields.
//!
//! `read` and `write` do not know each other; this file renders streams with the pieces of `write`.

mod read;
pub(super) mod tables;
mod write;

pub(super) use write::render_completion;

use convergio_domain::chat::{ChatReply, ChatRequest, MessagePart};
use serde_json::{Value, json};

use super::compat_run::ReplyHead;
use super::dialect::{CompatDialect, DialectEvent, DialectRequest, WholeReply, unix_seconds};
use super::error_format::ErrorFormat;
use super::field_table::{FieldPath, RequestFields};
use super::refusal::{CallFailure, CompatRefusal};
use super::reply_progress::{PartEvent, PartStart};

/// A call in the format of chat completions.
pub(super) struct CompatChatCompletions {
    model: String,
    is_streaming: bool,
    /// True if the stream ends with a usage chunk (`stream_options.include_usage`).
    includes_usage: bool,
    /// Run id of the call; empty until the stream begins.
    run: String,
    created: u64,
    /// Tool calls so far; the index of the next one.
    tool_calls: usize,
}

impl CompatChatCompletions {
    fn chunk_event(&self, delta: &Value, finish: Option<&str>) -> DialectEvent {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        DialectEvent::from_data(&self.chunk_frame(&json!([choice]), &Value::Null))
    }

    fn chunk_frame(&self, choices: &Value, usage: &Value) -> Value {
        let mut frame = json!({"id": write::completion_id(&self.run),
            "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": choices});
        // OpenAI sends `usage: null` in every chunk before the usage chunk, but only if it was
        // asked for.
        if self.includes_usage {
            frame["usage"] = usage.clone();
        }
        frame
    }

    fn delta_events(&self, delta: &Value) -> Vec<DialectEvent> {
        vec![self.chunk_event(delta, None)]
    }

    fn begin_part(&mut self, start: &PartStart) -> Vec<DialectEvent> {
        let PartStart::ToolCall { id, name } = start else {
            return match start {
                PartStart::Whole(part) => self.whole_part(part),
                _ => Vec::new(),
            };
        };
        let call = json!({"index": self.tool_calls, "id": id, "type": "function",
            "function": {"name": name, "arguments": ""}});
        self.tool_calls += 1;
        self.delta_events(&json!({"tool_calls": [call]}))
    }

    /// Renders a part that arrives whole; parts without a place in this format travel at the end.
    fn whole_part(&mut self, part: &MessagePart) -> Vec<DialectEvent> {
        let Some(mut call) = write::custom_tool_call(part) else { return Vec::new() };
        call["index"] = json!(self.tool_calls);
        self.tool_calls += 1;
        self.delta_events(&json!({"tool_calls": [call]}))
    }

    fn piece_events(&self, start: &PartStart, text: &str) -> Vec<DialectEvent> {
        match start {
            PartStart::Text => self.delta_events(&json!({"content": text})),
            PartStart::Thinking => self.delta_events(&json!({"reasoning_content": text})),
            PartStart::Refusal => self.delta_events(&json!({"refusal": text})),
            PartStart::ToolCall { .. } => {
                let index = self.tool_calls.saturating_sub(1);
                let call = json!({"index": index, "function": {"arguments": text}});
                self.delta_events(&json!({"tool_calls": [call]}))
            }
            PartStart::Whole(_) => Vec::new(),
        }
    }

    /// Renders the fields of a tool call that follow its arguments.
    fn end_part(&self, part: &MessagePart) -> Vec<DialectEvent> {
        let MessagePart::ToolCall(call) = part else { return Vec::new() };
        let fields = write::tool_call_fields(call);
        if fields.is_empty() {
            return Vec::new();
        }
        let mut delta = Value::Object(fields);
        delta["index"] = json!(self.tool_calls.saturating_sub(1));
        self.delta_events(&json!({"tool_calls": [delta]}))
    }
}

impl CompatDialect for CompatChatCompletions {
    const ERROR_FORMAT: ErrorFormat = ErrorFormat::OpenAi;

    fn read_request(
        dialect_request: &DialectRequest<'_>,
    ) -> Result<(ChatRequest, Self), CompatRefusal> {
        let (body, extra) = dialect_request.read_fields(&tables::BODY)?;
        let mut request = read::read_chat_body(&body)?;
        request.extra_body = extra;
        let options = FieldPath::ROOT.field("stream_options");
        let includes_usage = match body.get("stream_options") {
            Some(value) => RequestFields::read_known(value, options, &tables::STREAM_OPTIONS)?
                .get_flag("include_usage")
                .unwrap_or(false),
            None => false,
        };
        let dialect = Self {
            model: request.model.clone(),
            is_streaming: body.get_flag("stream").unwrap_or(false),
            includes_usage,
            run: String::new(),
            created: unix_seconds(),
            tool_calls: 0,
        };
        Ok((request, dialect))
    }

    fn is_streaming(&self) -> bool {
        self.is_streaming
    }

    fn render_reply(&self, answered: &WholeReply<'_>) -> Value {
        write::render_completion(answered, self.created)
    }

    fn render_start(&mut self, run: &str, head: &ReplyHead) -> Vec<DialectEvent> {
        run.clone_into(&mut self.run);
        if !head.model.is_empty() {
            head.model.clone_into(&mut self.model);
        }
        self.delta_events(&json!({"role": "assistant", "content": ""}))
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
        let mut events = Vec::new();
        let (message, top) = write::native_fields(reply);
        let details = write::reasoning_details(reply, &message);
        let mut delta = message;
        if !details.is_empty() {
            delta.insert("reasoning_details".to_owned(), Value::Array(details));
        }
        if !delta.is_empty() {
            events.push(self.chunk_event(&Value::Object(delta), None));
        }
        let finish = write::finish_reason(reply);
        let choice = json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": finish});
        let mut last = self.chunk_frame(&json!([choice]), &Value::Null);
        write::add_top_fields(&mut last, reply, &top);
        events.push(DialectEvent::from_data(&last));
        if self.includes_usage {
            events.push(DialectEvent::from_data(
                &self.chunk_frame(&json!([]), &write::usage_json(&reply.usage)),
            ));
        }
        // The end marker is text, not JSON.
        events.push(DialectEvent { name: None, data: "[DONE]".to_owned() });
        events
    }

    fn render_failure(&mut self, failure: &CallFailure) -> DialectEvent {
        let CallFailure { code, text, param, .. } = failure;
        DialectEvent::from_data(&ErrorFormat::OpenAi.error_body(
            code,
            text,
            param.as_deref(),
            &self.run,
        ))
    }
}
