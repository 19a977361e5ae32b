//! Memories.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something to be remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMemory {
    /// Whom or what it is about: a pseudonymous name.
    pub subject: String,
    /// What it says, at most 64 KiB.
    pub text: String,
    /// From 0 to 1000; 500 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importance: Option<u16>,
}

/// Answer after a memory was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryStored {
    /// Id of the memory, a UUID.
    pub id: String,
}

/// It is remembered no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryForgotten {
    /// Id of the memory, a UUID.
    pub id: String,
    /// False if it was forgotten before.
    pub forgotten: bool,
}

/// A stored memory of a subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryView {
    /// Id of the memory, a UUID.
    pub id: String,
    /// Text of the memory.
    pub text: String,
    /// What it takes of a prompt, in tokens, estimated high.
    pub tokens: u32,
    /// From 0 to 1000.
    pub importance: u16,
    /// When it was stored, RFC 3339.
    pub stored_at: String,
    /// How well it fits the query, from 0 to 1; absent when nothing was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}
