//! Anthropic's messages.
//!
//! - `read`: requests. `write`: replies. `tables`: the declared fields.
//!
//! `read` and `write` do not know each other; this file renders streams with the pieces of `write`.

mod read;
pub(super) mod tables;
mod write;

use axum::http::HeaderMap;
use convergio_domain::chat::{ChatField, ChatReply, ChatRequest, Interface, Part};
use serde_json::{Value, json};

use super::forms::Form;
use super::known::Path;
use super::progress::{PartEvent, PartStart};
use super::refusal::Refusal;
use super::turn::{CallFailure, Head};
use super::{Answered, Door, DoorRequest, Event};

const BETA: &str = "anthropic-beta";

/// A call in the format of messages.
pub(super) struct Messages {
    model: String,
    streams: bool,
    run: String,
    /// Index of the block in progress, or of the next one.
    index: usize,
    /// Citations of that block already sent.
    citations: usize,
}

/// Reads a request without creating a call; token counting needs no more.
pub(super) fn read_request(asked: &DoorRequest<'_>) -> Result<ChatRequest, Refusal> {
    let (body, extra) = asked.fields(&tables::BODY)?;
    let mut request = read::request(&body)?;
    request.extra_body = extra;
    take_betas(asked.headers, &mut request)?;
    Ok(request)
}

/// Adds the beta features that the header asks for; the body may name others.
fn take_betas(headers: &HeaderMap, request: &mut ChatRequest) -> Result<(), Refusal> {
    let mut betas = Vec::new();
    for value in headers.get_all(BETA) {
        let text = value.to_str().map_err(|_| Path::ROOT.field(BETA).refuse("must be ASCII"))?;
        betas.extend(text.split(',').map(str::trim).filter(|beta| !beta.is_empty()));
    }
    // The body's own `betas` were joined by `read_chat_body`.
    if let Some(Value::String(body)) = request.options.get(&ChatField::Betas) {
        betas.extend(body.split(','));
    }
    if !betas.is_empty() {
        let betas = json!(betas.join(","));
        request.options.insert(ChatField::Betas, betas);
    }
    Ok(())
}

impl Messages {
    /// Renders a block that arrives whole.
    fn block(&mut self, block: &Value) -> Vec<Event> {
        let index = self.index;
        self.index += 1;
        vec![
            event("content_block_start", json!({"index": index, "content_block": block})),
            event("content_block_stop", json!({"index": index})),
        ]
    }

    fn delta(&self, delta: &Value) -> Event {
        event("content_block_delta", json!({"index": self.index, "delta": delta}))
    }

    fn begin_part(&mut self, start: &PartStart) -> Vec<Event> {
        self.citations = 0;
        let block = match start {
            PartStart::Text | PartStart::Refusal => json!({"type": "text", "text": ""}),
            PartStart::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
            PartStart::ToolCall { id, name } => {
                json!({"type": "tool_use", "id": id, "name": name, "input": {}})
            }
            PartStart::Whole(_) => return Vec::new(),
        };
        vec![event("content_block_start", json!({"index": self.index, "content_block": block}))]
    }

    fn piece(&self, open: &PartStart, text: &str) -> Vec<Event> {
        let delta = match open {
            PartStart::Text | PartStart::Refusal => json!({"type": "text_delta", "text": text}),
            PartStart::Thinking => json!({"type": "thinking_delta", "thinking": text}),
            PartStart::ToolCall { .. } => {
                json!({"type": "input_json_delta", "partial_json": text})
            }
            PartStart::Whole(_) => return Vec::new(),
        };
        vec![self.delta(&delta)]
    }

    fn native(&mut self, interface: Interface, delta: &Value) -> Vec<Event> {
        let kind = delta["type"].as_str().unwrap_or_default();
        if interface != Interface::Anthropic || !kind.ends_with("_delta") {
            // Only Anthropic's own deltas fit into its stream; the rest travels in carriers.
            return Vec::new();
        }
        self.citations += usize::from(kind == "citations_delta");
        vec![self.delta(delta)]
    }

    fn end_part(&mut self, open: &PartStart, part: &Part) -> Vec<Event> {
        // A whole part begins and ends at once; `begin_part` has sent nothing for it.
        if let PartStart::Whole(_) = open {
            let block = write::block(part);
            return self.block(&block);
        }
        let mut events = Vec::new();
        match part {
            Part::Thinking(thinking) => {
                // The signature comes last, as in Anthropic's streams.
                let signature = write::signature(thinking);
                if !signature.is_empty() {
                    let delta = json!({"type": "signature_delta", "signature": signature});
                    events.push(self.delta(&delta));
                }
            }
            Part::Text(text) => {
                let citations = write::citations(text.native.as_ref());
                for citation in citations.iter().skip(self.citations) {
                    let delta = json!({"type": "citations_delta", "citation": citation});
                    events.push(self.delta(&delta));
                }
            }
            _ => {}
        }
        events.push(event("content_block_stop", json!({"index": self.index})));
        self.index += 1;
        // Fields of another interface follow in a block of their own, which clients send back
        // unread.
        if let Some(block) = write::carried_fields(part) {
            events.extend(self.block(&block));
        }
        events
    }
}

impl Door for Messages {
    const FORM: Form = Form::Anthropic;

    fn read(asked: &DoorRequest<'_>) -> Result<(ChatRequest, Self), Refusal> {
        let request = read_request(asked)?;
        // Anthropic's API requires it; counting does not.
        if request.max_tokens.is_none() {
            return Err(Path::ROOT.field("max_tokens").refuse("missing"));
        }
        let streams = asked.body["stream"].as_bool().unwrap_or(false);
        let model = request.model.clone();
        Ok((request, Self { model, streams, run: String::new(), index: 0, citations: 0 }))
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn whole(&self, answered: &Answered<'_>) -> Value {
        write::message(answered)
    }

    fn begin(&mut self, run: &str, head: &Head) -> Vec<Event> {
        run.clone_into(&mut self.run);
        // The provider may have answered under a more precise name.
        let model = if head.model.is_empty() { &self.model } else { &head.model };
        let message = json!({"id": write::id(run), "type": "message", "role": "assistant",
            "model": model, "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": write::usage(&head.usage, None)});
        vec![event("message_start", json!({"message": message}))]
    }

    fn part(&mut self, open: &PartStart, event: &PartEvent) -> Vec<Event> {
        match event {
            PartEvent::Begin(start) => self.begin_part(start),
            PartEvent::Piece(text) => self.piece(open, text),
            PartEvent::Native(interface, delta) => self.native(*interface, delta),
            PartEvent::End(part) => self.end_part(open, part),
        }
    }

    fn end(&mut self, reply: &ChatReply) -> Vec<Event> {
        let delta =
            json!({"stop_reason": write::stop(reply), "stop_sequence": reply.stop_sequence});
        let usage = write::usage(&reply.usage, Some(reply));
        let block = write::message_block(reply);
        let mut events = block.map(|block| self.block(&block)).unwrap_or_default();
        events.push(event("message_delta", json!({"delta": delta, "usage": usage})));
        events.push(event("message_stop", json!({})));
        events
    }

    fn broken(&mut self, failure: &CallFailure) -> Event {
        let CallFailure { code, text, param, .. } = failure;
        Event::named("error", &Form::Anthropic.error(code, text, param.as_deref(), &self.run))
    }
}

fn event(name: &'static str, mut data: Value) -> Event {
    data["type"] = json!(name);
    Event::named(name, &data)
}
