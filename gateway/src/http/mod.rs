//! The handlers of the HTTP API, a file for each noun, and what they share.
//!
//! - `graphs`, `runs`, `agents`, `memories`, `approvals`, `tokens`: the nouns.
//! - `run_control`, `amend`, `fork`, `migrate`, `replay`, `run_diff`, `export`: operations on a
//!   run.
//! - `events`: a stream's events as a page, by server-sent events or by WebSocket.
//! - `billing`, `health`: usage, ledger and audit trail; health checks.
//! - `compat`: the APIs of OpenAI and Anthropic.
//! - `query_params`, `list_filters`, `json_body`, `body`: what requests carry.
//! - `run_lookup`, `run_view`, `run_steps`, `failure_details`, `payload_json`: what
//!   several handlers read and show.
//!
//! A handler parses, calls a use case or queries the read models, and converts the result to a wire
//! type. Rules belong to `domain`. Each file of handlers exports its routes, which `router` joins;
//! none takes from this file, which only lends [`Gateway`] what it reads back.
//! The router also documents what all have: the errors 401 and 422, and the idempotency key.

pub(crate) mod agents;
pub(crate) mod amend;
pub(crate) mod approvals;
pub(crate) mod billing;
pub(crate) mod body;
pub(crate) mod compat;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod failure_details;
pub(crate) mod fork;
pub(crate) mod graphs;
pub(crate) mod health;
mod json_body;
mod list_filters;
pub(crate) mod memories;
pub(crate) mod migrate;
mod payload_json;
mod query_params;
pub(crate) mod replay;
pub(crate) mod run_control;
pub(crate) mod run_diff;
mod run_lookup;
mod run_steps;
mod run_view;
pub(crate) mod runs;
pub(crate) mod tokens;

use std::time::Duration;

use bytes::Bytes;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::StreamKey;
use convergio_eventstore::Position;
use serde_json::Value;

use crate::content_budget::ContentBudget;
use crate::problem::ApiError;
use crate::state::Gateway;
use payload_json::payload_as_json;

/// Maximum wait of an answer for the read models to include what was written before it.
const PROJECTION_TIMEOUT: Duration = Duration::from_secs(3);

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
