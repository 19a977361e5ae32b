//! Events of requests that carried an idempotency key, version 1.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::payload::PayloadRef;

/// `request.accepted.v1`: the key is bound to this request for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// BLAKE3 of who asks, method, path, query and body, as hexadecimal digits; in older logs of
    /// method, path and body.
    pub request_hash: String,
}

/// `request.answered.v1`: what was answered, and is answered whenever the request is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// The media type of the body.
    pub media_type: String,
    /// The body, byte for byte.
    pub body: PayloadRef,
}

/// `request.applied.v1`, in the stream of what it changed: this commit carries out a request. The
/// same request again changes nothing there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The request; its stream is `request/UUID`.
    pub request: Uuid,
}
