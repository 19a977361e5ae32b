//! The handlers, by noun.

pub(crate) mod agents;
pub(crate) mod amend;
pub(crate) mod approvals;
pub(crate) mod billing;
pub(crate) mod branches;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod failures;
pub(crate) mod filters;
pub(crate) mod fork;
pub(crate) mod front;
pub(crate) mod graphs;
pub(crate) mod health;
pub(crate) mod json_body;
pub(crate) mod memories;
pub(crate) mod migrate;
pub(crate) mod replay;
pub(crate) mod runs;
mod signal_names;
pub(crate) mod steer;
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
use crate::contents::ContentRoom;
use crate::problem::ApiError;
use filters::{PAGE_ITEMS, PageLimit};

/// How long an answer waits for the read models to reach what was written before.
const FRESH: Duration = Duration::from_secs(3);

/// Which page.
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
    pub(crate) fn limit(&self) -> usize {
        self.limit.map_or(PAGE_ITEMS, usize::from)
    }
}

/// A query string, with errors as problem details.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|error| ApiError::invalid(error.body_text()))
    }
}

impl Gateway {
    /// Waits until the read models know the head of a stream; tells whether the stream exists.
    pub(crate) async fn catch_up(&self, stream: &StreamKey) -> Result<bool, ApiError> {
        match self.repository.log().head(stream).await? {
            Some(head) => {
                self.reach(head.position).await;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn reach(&self, position: Position) {
        if !self.queries.wait_for(position, FRESH).await {
            tracing::warn!("the read models are behind");
        }
    }

    /// A payload as JSON; null when it was erased.
    pub(crate) async fn open(
        &self,
        stream: &StreamKey,
        reference: &str,
    ) -> Result<Value, ApiError> {
        let bytes = self.payload_bytes(stream, reference).await?;
        Ok(bytes.map_or(Value::Null, |bytes| as_json(&bytes)))
    }

    /// The same, if there is room for it; nothing otherwise.
    pub(crate) async fn open_within(
        &self,
        stream: &StreamKey,
        reference: &str,
        room: &mut ContentRoom,
    ) -> Result<Option<Value>, ApiError> {
        let Some(bytes) = self.payload_bytes(stream, reference).await? else {
            return Ok(Some(Value::Null));
        };
        Ok(room.take(&bytes).then(|| as_json(&bytes)))
    }

    async fn payload_bytes(
        &self,
        stream: &StreamKey,
        reference: &str,
    ) -> Result<Option<Bytes>, ApiError> {
        let Ok(reference) = reference.parse::<PayloadRef>() else { return Ok(None) };
        Ok(self.repository.payload(stream, reference).await?)
    }
}

/// A content as JSON: itself, its text, or its bytes, as in the form of a recording.
fn as_json(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::as_json;

    #[test]
    fn no_byte_of_a_content_is_lost() {
        for (bytes, expected) in [
            (&b"{\"a\": 1}"[..], json!({"a": 1})),
            (b"plain", json!("plain")),
            (b"--x\r\n\xff", json!({"base64": "LS14DQr/"})),
        ] {
            assert_eq!(as_json(&Bytes::from_static(bytes)), expected);
        }
    }
}
