//! Anthropic's messages, in both versions of the interface.
//!
//! `write` makes the request and its beta features, `read` takes the answer in.

mod read;
mod write;

use convergio_domain::chat::{ChatField, ChatInterface, ChatRequest, FieldSupport};
use serde_json::Value;

use super::json_fields::text_field;
use super::wire_format::{Dialect, ReadError, check_error};
use crate::provider::answer::{AnswerBuilder, UsageReader};
use crate::provider::provider_traits::ProviderTraits;
use crate::provider::usage;

/// The first version. It accepts sampling parameters, which later ones reject.
const FIRST_VERSION: &str = "2023-06-01";

/// The dialect of Anthropic's messages.
pub(super) struct MessagesDialect {
    /// The value of the `anthropic-version` header.
    version: String,
}

impl MessagesDialect {
    pub(super) fn new(version: &str) -> Self {
        Self { version: version.to_owned() }
    }
}

impl Dialect for MessagesDialect {
    fn wire_interface(&self) -> ChatInterface {
        ChatInterface::Anthropic
    }

    fn field_support(&self, field: ChatField) -> FieldSupport {
        match field {
            _ if self.version == FIRST_VERSION => field.support_at(ChatInterface::Anthropic),
            ChatField::Temperature | ChatField::TopP => FieldSupport::LeftOut,
            ChatField::TopK => FieldSupport::Refused,
            field => field.support_at(ChatInterface::Anthropic),
        }
    }

    fn chat_path(&self, _model: &str, _is_stream: bool) -> String {
        "/messages".to_owned()
    }

    fn write_request(&self, request: &ChatRequest, traits: &ProviderTraits) -> Value {
        write::write_body(request, traits.is_stream())
    }

    fn request_headers(&self, request: &ChatRequest) -> Vec<(&'static str, String)> {
        let betas = write::beta_features(request);
        (!betas.is_empty()).then(|| ("anthropic-beta", betas.join(","))).into_iter().collect()
    }

    fn read_piece(&self, piece: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
        check_error(piece)?;
        read::read_event(piece, answer);
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
        check_error(body)?;
        let blocks = body["content"].as_array().ok_or(ReadError::Malformed("it has no content"))?;
        for block in blocks {
            read::begin_block(block, None, answer);
            read::end_block(None, answer);
        }
        read::begin_message(body, answer);
        // An answer that arrived whole did not break off, even if it gives no reason.
        let finish = if body["stop_reason"].is_null() {
            Some("stop")
        } else {
            read::map_stop_reason(text_field(body, "stop_reason"))
        };
        answer.set_stop_sequence(&body["stop_sequence"]);
        answer.set_finish(finish, text_field(body, "stop_reason"));
        Ok(())
    }

    fn usage_reader(&self) -> UsageReader {
        usage::from_anthropic
    }

    fn provider_headers(&self) -> Vec<(&'static str, String)> {
        vec![("anthropic-version", self.version.clone())]
    }
}
