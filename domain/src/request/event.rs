//! Payloads of events of requests under an idempotency key, version 1.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::event::noun_events::noun_events;
use crate::payload::PayloadRef;

noun_events! {
    /// Events of request streams; the last one stands in streams of any other noun.
    pub enum RequestEvent {
        RequestAccepted(RequestAccepted) = "request.accepted.v1",
        RequestAnswered(RequestAnswered) = "request.answered.v1",
        RequestApplied(RequestApplied) = "request.applied.v1",
    }
}

impl RequestEvent {
    /// Returns the content of the event that an auditor sees; `None` for bookkeeping.
    pub(crate) fn audit_summary(&self) -> Option<Value> {
        match self {
            Self::RequestAccepted(_) | Self::RequestAnswered(_) | Self::RequestApplied(_) => None,
        }
    }
}

/// `request.accepted.v1`: the key is bound to this request for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestAccepted {
    /// BLAKE3 of actor, method, path, query and body, as hexadecimal digits; in older logs of
    /// method, path and body.
    pub request_hash: String,
}

/// `request.answered.v1`: the response, which is repeated whenever the request is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestAnswered {
    /// HTTP status of the response.
    pub status: u16,
    /// Media type of the response body.
    pub media_type: String,
    /// Response body, byte for byte.
    pub body: PayloadRef,
}

/// `request.applied.v1`: the commit carries out a request. Recorded in the stream that the request
/// changes, so that a repeated request has no second effect there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestApplied {
    /// Id of the request; its stream is `request/UUID`.
    pub request: Uuid,
}
