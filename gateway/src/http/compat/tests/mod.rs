//! What holds for all doors alike.

mod documentation;
mod golden;
mod knowledge;
mod travel;

use axum::http::HeaderMap;
use convergio_domain::chat::ChatRequest;
use serde_json::Value;

use super::chat::CompatChatCompletions;
use super::dialect::{CompatDialect, DialectRequest};
use super::field_table::ObjectSpec;
use super::messages::CompatMessages;
use super::refusal::CompatRefusal;
use super::responses::CompatResponses;
use super::stored_runs::StoredRuns;
use super::{CompatSettings, chat, messages, responses};

/// A door, for tests that go over all of them.
struct Tested {
    name: &'static str,
    tables: &'static [&'static ObjectSpec],
    read: fn(&Value) -> Result<(ChatRequest, bool), CompatRefusal>,
}

fn read_by<D: CompatDialect>(body: &Value) -> Result<(ChatRequest, D), CompatRefusal> {
    let (headers, settings) = (HeaderMap::new(), CompatSettings::default());
    let stored = StoredRuns::default();
    let asked = DialectRequest { body, headers: &headers, settings: &settings, stored: &stored };
    D::read_request(&asked)
}

fn read<D: CompatDialect>(body: &Value) -> Result<(ChatRequest, bool), CompatRefusal> {
    read_by::<D>(body).map(|(request, door)| (request, !door.left_out().is_empty()))
}

const DOORS: [Tested; 3] = [
    Tested {
        name: "POST /openai/v1/chat/completions",
        tables: chat::tables::ALL,
        read: read::<CompatChatCompletions>,
    },
    Tested {
        name: "POST /openai/v1/responses",
        tables: responses::tables::ALL,
        read: read::<CompatResponses>,
    },
    Tested {
        name: "POST /anthropic/v1/messages",
        tables: messages::tables::ALL,
        read: read::<CompatMessages>,
    },
];
