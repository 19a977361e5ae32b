//! The handlers of the HTTP API, a file for each noun, and what they share.
//!
//! - `graphs`, `runs`, `agents`, `memories`, `approvals`, `tokens`: the nouns.
//! - `run_control`, `amend`, `fork`, `migrate`, `replay`, `run_diff`, `export`: operations on a
//!   run.
//! - `events`: a stream's events as a page, by server-sent events or by WebSocket.
//! - `billing`, `health`: usage, ledger and audit trail; health checks.
//! - `compat`: the APIs of OpenAI and Anthropic.
//! - `list_filters`, `json_body`, `failure_details`, `signal_names`: helpers of several handlers.
//!
//! A handler parses, gives the repository a command or queries the read models, and converts the
//! result to a wire type. Rules belong to `domain`.

pub(crate) mod agents;
pub(crate) mod amend;
pub(crate) mod approvals;
pub(crate) mod billing;
pub(crate) mod compat;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod failure_details;
pub(crate) mod fork;
pub(crate) mod graphs;
pub(crate) mod health;
pub(crate) mod json_body;
pub(crate) mod list_filters;
pub(crate) mod memories;
pub(crate) mod migrate;
pub(crate) mod replay;
pub(crate) mod run_control;
pub(crate) mod run_diff;
pub(crate) mod runs;
mod signal_names;
pub(crate) mod tokens;

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::StreamKey;
use convergio_eventstore::Position;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::app::Gateway;
use crate::content_budget::ContentBudget;
use crate::problem::ApiError;
use list_filters::{PAGE_ITEMS, PageLimit};

/// Maximum wait of an answer for the read models to include what was written before it.
const PROJECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// Query parameters of a page.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// The `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
    /// Items of a page, 1 to 1000; 50 when absent.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<PageLimit>,
}

impl Paging {
    pub(crate) fn page_limit(&self) -> usize {
        self.limit.map_or(PAGE_ITEMS, usize::from)
    }
}

/// Extractor of a query string whose rejection is an [`ApiError`].
pub(crate) struct QueryParams<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|query| Self(query.0))
            .map_err(|error| ApiError::invalid_request(error.body_text()))
    }
}

impl Gateway {
    /// Waits until the read models include the head of a stream; returns false if the stream does
    /// not exist. A caller thereby reads its own writes.
    pub(crate) async fn catch_up(&self, stream: &StreamKey) -> Result<bool, ApiError> {
        match self.repository.event_log().stream_head(stream).await? {
            Some(head) => {
                self.wait_until_projected(head.position).await;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn wait_until_projected(&self, position: Position) {
        // The answer is then stale and not an error: the command itself has succeeded.
        if !self.queries.wait_for_position(position, PROJECTION_TIMEOUT).await {
            tracing::warn!("the read models are behind");
        }
    }

    /// Opens a payload as JSON; null if it was erased.
    pub(crate) async fn open_payload(
        &self,
        stream: &StreamKey,
        reference: &str,
    ) -> Result<Value, ApiError> {
        let bytes = self.payload_bytes(stream, reference).await?;
        Ok(bytes.map_or(Value::Null, |bytes| payload_as_json(&bytes)))
    }

    /// Opens a payload as JSON if the budget allows it; `None` otherwise.
    pub(crate) async fn open_payload_within(
        &self,
        stream: &StreamKey,
        reference: &str,
        room: &mut ContentBudget,
    ) -> Result<Option<Value>, ApiError> {
        let Some(bytes) = self.payload_bytes(stream, reference).await? else {
            return Ok(Some(Value::Null));
        };
        Ok(room.try_reserve(&bytes).then(|| payload_as_json(&bytes)))
    }

    async fn payload_bytes(
        &self,
        stream: &StreamKey,
        reference: &str,
    ) -> Result<Option<Bytes>, ApiError> {
        // References come from the read models, so an unreadable one is treated as erased.
        let Ok(reference) = reference.parse::<PayloadRef>() else { return Ok(None) };
        Ok(self.repository.read_payload(stream, reference).await?)
    }
}

/// Represents a payload as JSON: its own JSON, its text, or its bytes in base64 (as of a
/// recording's form).
fn payload_as_json(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::payload_as_json;

    #[test]
    fn no_byte_of_a_content_is_lost() {
        for (bytes, expected) in [
            (&b"{\"a\": 1}"[..], json!({"a": 1})),
            (b"plain", json!("plain")),
            (b"--x\r\n\xff", json!({"base64": "LS14DQr/"})),
        ] {
            assert_eq!(payload_as_json(&Bytes::from_static(bytes)), expected);
        }
    }
}
