//! Anthropic's messages, in both versions of the interface.
//!
//! `write` makes the request and its beta features, `read` takes the answer in.

mod read;
mod write;

use convergio_domain::chat::{ChatField, ChatRequest, FieldSupport, Interface};
use serde_json::Value;

use super::{Dialect, ReadError, refuse_errors, text};
use crate::model::answer::{Answer, UsageReader};
use crate::model::provider_traits::ProviderTraits;
use crate::model::usage;

const INTERFACE: Interface = Interface::Anthropic;
/// The first version. It accepts sampling parameters, which later ones reject.
const FIRST: &str = "2023-06-01";

/// The dialect of Anthropic's messages.
pub(super) struct Messages {
    /// The value of the `anthropic-version` header.
    version: String,
}

impl Messages {
    pub(super) fn new(version: &str) -> Self {
        Self { version: version.to_owned() }
    }
}

impl Dialect for Messages {
    fn interface(&self) -> Interface {
        INTERFACE
    }

    fn support(&self, field: ChatField) -> FieldSupport {
        match field {
            _ if self.version == FIRST => field.support(INTERFACE),
            ChatField::Temperature | ChatField::TopP => FieldSupport::LeftOut,
            ChatField::TopK => FieldSupport::Refused,
            field => field.support(INTERFACE),
        }
    }

    fn chat_path(&self, _model: &str, _is_stream: bool) -> String {
        "/messages".to_owned()
    }

    fn write(&self, request: &ChatRequest, traits: &ProviderTraits) -> Value {
        write::body(request, traits.is_stream())
    }

    fn request_headers(&self, request: &ChatRequest) -> Vec<(&'static str, String)> {
        let betas = write::betas(request);
        (!betas.is_empty()).then(|| ("anthropic-beta", betas.join(","))).into_iter().collect()
    }

    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(piece)?;
        read::piece(piece, answer);
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(body)?;
        let blocks = body["content"].as_array().ok_or(ReadError::Malformed("it has no content"))?;
        for block in blocks {
            read::begin_block(block, None, answer);
            read::end_block(None, answer);
        }
        read::begin_message(body, answer);
        // An answer that arrived whole did not break off, even if it gives no reason.
        let known = if body["stop_reason"].is_null() {
            Some("stop")
        } else {
            read::known_stop(text(body, "stop_reason"))
        };
        answer.stop_at(&body["stop_sequence"]);
        answer.finish(known, text(body, "stop_reason"));
        Ok(())
    }

    fn usage(&self) -> UsageReader {
        usage::from_anthropic
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("anthropic-version", self.version.clone())]
    }
}
