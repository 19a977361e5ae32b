//! Anthropic's messages.
//!
//! - `read`: requests. `write`: replies. `tables`: the declared fields.
//!
//! `read` and `write` do not know each other; this file renders streams with the pieces of `write`.

mod read;
pub(super) mod tables;
mod write;

use axum::http::HeaderMap;
use convergio_domain::chat::{ChatField, ChatInterface, ChatReply, ChatRequest, MessagePart};
use serde_json::{Value, json};

use super::compat_run::ReplyHead;
use super::dialect::{CompatDialect, DialectEvent, DialectRequest, WholeReply};
use super::error_format::ErrorFormat;
use super::field_table::FieldPath;
use super::refusal::{CallFailure, CompatRefusal};
use super::reply_progress::{PartEvent, PartStart};

const BETA_HEADER: &str = "anthropic-beta";

/// A call in the format of messages.
pub(super) struct CompatMessages {
    model: String,
    is_streaming: bool,
    run: String,
    /// Index of the block in progress, or of the next one.
    block_index: usize,
    /// Citations of that block already sent.
    sent_citations: usize,
}

/// Reads a request without creating a call; token counting needs no more.
pub(super) fn read_chat_request(
    dialect_request: &DialectRequest<'_>,
) -> Result<ChatRequest, CompatRefusal> {
    let (body, extra) = dialect_request.read_fields(&tables::BODY)?;
    let mut request = read::read_chat_body(&body)?;
    request.extra_body = extra;
    apply_beta_header(dialect_request.headers, &mut request)?;
    Ok(request)
}

/// Adds the beta features that the header asks for; the body may name others.
fn apply_beta_header(headers: &HeaderMap, request: &mut ChatRequest) -> Result<(), CompatRefusal> {
    let mut betas = Vec::new();
    for value in headers.get_all(BETA_HEADER) {
        let text = value
            .to_str()
            .map_err(|_| FieldPath::ROOT.field(BETA_HEADER).refuse("must be ASCII"))?;
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

impl CompatMessages {
    /// Renders a block that arrives whole.
    fn block_events(&mut self, block: &Value) -> Vec<DialectEvent> {
        let index = self.block_index;
        self.block_index += 1;
        vec![
            typed_event("content_block_start", json!({"index": index, "content_block": block})),
            typed_event("content_block_stop", json!({"index": index})),
        ]
    }

    fn delta_event(&self, delta: &Value) -> DialectEvent {
        typed_event("content_block_delta", json!({"index": self.block_index, "delta": delta}))
    }

    fn begin_part(&mut self, start: &PartStart) -> Vec<DialectEvent> {
        self.sent_citations = 0;
        let block = match start {
            PartStart::Text | PartStart::Refusal => json!({"type": "text", "text": ""}),
            PartStart::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
            PartStart::ToolCall { id, name } => {
                json!({"type": "tool_use", "id": id, "name": name, "input": {}})
            }
            PartStart::Whole(_) => return Vec::new(),
        };
        vec![typed_event(
            "content_block_start",
            json!({"index": self.block_index, "content_block": block}),
        )]
    }

    fn piece_events(&self, part_start: &PartStart, text: &str) -> Vec<DialectEvent> {
        let delta = match part_start {
            PartStart::Text | PartStart::Refusal => json!({"type": "text_delta", "text": text}),
            PartStart::Thinking => json!({"type": "thinking_delta", "thinking": text}),
            PartStart::ToolCall { .. } => {
                json!({"type": "input_json_delta", "partial_json": text})
            }
            PartStart::Whole(_) => return Vec::new(),
        };
        vec![self.delta_event(&delta)]
    }

    fn native_events(&mut self, interface: ChatInterface, delta: &Value) -> Vec<DialectEvent> {
        let kind = delta["type"].as_str().unwrap_or_default();
        if interface != ChatInterface::Anthropic || !kind.ends_with("_delta") {
            // Only Anthropic's own deltas fit into its stream; the rest travels in carriers.
            return Vec::new();
        }
        self.sent_citations += usize::from(kind == "citations_delta");
        vec![self.delta_event(delta)]
    }

    fn end_part(&mut self, part_start: &PartStart, part: &MessagePart) -> Vec<DialectEvent> {
        // A whole part begins and ends at once; `begin_part` has sent nothing for it.
        if let PartStart::Whole(_) = part_start {
            let block = write::block_json(part);
            return self.block_events(&block);
        }
        let mut events = Vec::new();
        match part {
            MessagePart::Thinking(thinking) => {
                // The signature comes last, as in Anthropic's streams.
                let signature = write::thinking_signature(thinking);
                if !signature.is_empty() {
                    let delta = json!({"type": "signature_delta", "signature": signature});
                    events.push(self.delta_event(&delta));
                }
            }
            MessagePart::Text(text) => {
                let citations = write::text_citations(text.native.as_ref());
                for citation in citations.iter().skip(self.sent_citations) {
                    let delta = json!({"type": "citations_delta", "citation": citation});
                    events.push(self.delta_event(&delta));
                }
            }
            _ => {}
        }
        events.push(typed_event("content_block_stop", json!({"index": self.block_index})));
        self.block_index += 1;
        // Fields of another interface follow in a block of their own, which clients send back
        // unread.
        if let Some(block) = write::foreign_fields_block(part) {
            events.extend(self.block_events(&block));
        }
        events
    }
}

impl CompatDialect for CompatMessages {
    const ERROR_FORMAT: ErrorFormat = ErrorFormat::Anthropic;

    fn read_request(
        dialect_request: &DialectRequest<'_>,
    ) -> Result<(ChatRequest, Self), CompatRefusal> {
        let request = read_chat_request(dialect_request)?;
        // Anthropic's API requires it; counting does not.
        if request.max_tokens.is_none() {
            return Err(FieldPath::ROOT.field("max_tokens").refuse("missing"));
        }
        let streams = dialect_request.body["stream"].as_bool().unwrap_or(false);
        let model = request.model.clone();
        Ok((
            request,
            Self {
                model,
                is_streaming: streams,
                run: String::new(),
                block_index: 0,
                sent_citations: 0,
            },
        ))
    }

    fn is_streaming(&self) -> bool {
        self.is_streaming
    }

    fn render_reply(&self, answered: &WholeReply<'_>) -> Value {
        write::render_message(answered)
    }

    fn render_start(&mut self, run: &str, head: &ReplyHead) -> Vec<DialectEvent> {
        run.clone_into(&mut self.run);
        // The provider may have answered under a more precise name.
        let model = if head.model.is_empty() { &self.model } else { &head.model };
        let message = json!({"id": write::message_id(run), "type": "message", "role": "assistant",
            "model": model, "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": write::usage_json(&head.usage, None)});
        vec![typed_event("message_start", json!({"message": message}))]
    }

    fn render_part(&mut self, part_start: &PartStart, event: &PartEvent) -> Vec<DialectEvent> {
        match event {
            PartEvent::Begin(start) => self.begin_part(start),
            PartEvent::Piece(text) => self.piece_events(part_start, text),
            PartEvent::Native(interface, delta) => self.native_events(*interface, delta),
            PartEvent::End(part) => self.end_part(part_start, part),
        }
    }

    fn render_end(&mut self, reply: &ChatReply) -> Vec<DialectEvent> {
        let delta =
            json!({"stop_reason": write::stop_reason(reply), "stop_sequence": reply.stop_sequence});
        let usage = write::usage_json(&reply.usage, Some(reply));
        let block = write::message_fields_block(reply);
        let mut events = block.map(|block| self.block_events(&block)).unwrap_or_default();
        events.push(typed_event("message_delta", json!({"delta": delta, "usage": usage})));
        events.push(typed_event("message_stop", json!({})));
        events
    }

    fn render_failure(&mut self, failure: &CallFailure) -> DialectEvent {
        let CallFailure { code, text, param, .. } = failure;
        DialectEvent::from_named_data(
            "error",
            &ErrorFormat::Anthropic.error_body(code, text, param.as_deref(), &self.run),
        )
    }
}

fn typed_event(name: &'static str, mut data: Value) -> DialectEvent {
    data["type"] = json!(name);
    DialectEvent::from_named_data(name, &data)
}
