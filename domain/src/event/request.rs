//! Events of a request that carried an idempotency key, version 1.

use serde::{Deserialize, Serialize};

/// `request.accepted.v1`: the key is bound to this request for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// BLAKE3 of method, path and body, as hexadecimal digits.
    pub request_hash: String,
}
