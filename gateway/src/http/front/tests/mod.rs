//! What holds for all doors alike.

mod documentation;
mod golden;
mod knowledge;
mod travel;

use axum::http::HeaderMap;
use convergio_domain::chat::ChatRequest;
use serde_json::Value;

use super::chat::Completions;
use super::known::Object;
use super::messages::Messages;
use super::refusal::Refusal;
use super::responses::Responses;
use super::stored::StoredRuns;
use super::{Door, DoorRequest, DoorSettings, chat, messages, responses};

/// A door, for tests that go over all of them.
struct Tested {
    name: &'static str,
    tables: &'static [&'static Object],
    read: fn(&Value) -> Result<(ChatRequest, bool), Refusal>,
}

fn read_by<D: Door>(body: &Value) -> Result<(ChatRequest, D), Refusal> {
    let (headers, settings) = (HeaderMap::new(), DoorSettings::default());
    let stored = StoredRuns::default();
    let asked = DoorRequest { body, headers: &headers, settings: &settings, stored: &stored };
    D::read(&asked)
}

fn read<D: Door>(body: &Value) -> Result<(ChatRequest, bool), Refusal> {
    read_by::<D>(body).map(|(request, door)| (request, !door.left_out().is_empty()))
}

const DOORS: [Tested; 3] = [
    Tested {
        name: "POST /openai/v1/chat/completions",
        tables: chat::tables::ALL,
        read: read::<Completions>,
    },
    Tested {
        name: "POST /openai/v1/responses",
        tables: responses::tables::ALL,
        read: read::<Responses>,
    },
    Tested {
        name: "POST /anthropic/v1/messages",
        tables: messages::tables::ALL,
        read: read::<Messages>,
    },
];
