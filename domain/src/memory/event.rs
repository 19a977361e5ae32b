//! Payloads of memory events, version 1: texts remembered about one subject.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::event::noun_events::noun_events;
use crate::id::{MemoryId, Subject};
use crate::payload::PayloadRef;

noun_events! {
    /// Events of memory streams.
    pub enum MemoryEvent {
        MemoryStored(MemoryStoredEvent) = "memory.stored.v1",
        MemoryForgotten(MemoryForgottenEvent) = "memory.forgotten.v1",
    }
}

impl MemoryEvent {
    /// Returns the content of the event that an auditor sees; `None` for bookkeeping.
    pub(crate) fn audit_summary(&self) -> Option<Value> {
        Some(match self {
            Self::MemoryStored(e) => json!({"memory": e.memory, "subject": e.subject}),
            Self::MemoryForgotten(e) => json!({"memory": e.memory}),
        })
    }
}

/// `memory.stored.v1`: a text is remembered from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStoredEvent {
    /// Id of the remembered text.
    pub memory: MemoryId,
    /// Person or thing that the text is about.
    pub subject: Subject,
    /// Remembered text, as a sealed payload.
    pub text: PayloadRef,
    /// Estimated length in tokens, rounded up.
    pub tokens: u32,
    /// Importance from 0 to 1000.
    pub importance: u16,
}

/// `memory.forgotten.v1`: a text is no longer remembered, and its payload is erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryForgottenEvent {
    /// Id of the forgotten text.
    pub memory: MemoryId,
}
