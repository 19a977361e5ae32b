//! Errors: RFC 9457 problem details with a stable code.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong (`application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where the code is explained.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// HTTP status code of the answer.
    pub status: u16,
    /// What happened here, and what would be right.
    pub detail: String,
    /// The stable code, as `graph.invalid`.
    pub code: String,
    /// The request, for questions about it.
    pub request_id: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Every mistake of a manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<MistakeView>,
}

/// One mistake of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MistakeView {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// Where in the manifest, as `nodes[2].map.over`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}
