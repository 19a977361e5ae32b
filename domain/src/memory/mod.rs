//! The memory noun: what agents remember of one subject, in one stream a subject.
//!
//! Its events are in [`event`], its rules here. Texts are payloads. How well a memory fits a query
//! is not decided here but by the index that is folded from these events.

pub mod event;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use event::{MemoryEvent, MemoryForgottenEvent, MemoryStoredEvent};

use crate::decider::{Decider, DecisionContext, RecordedEvent, Wake};
pub use crate::id::{InvalidSubject, MemoryId, Subject};
use crate::id::{TenantId, derive_uuid};
use crate::payload::{PayloadRef, PayloadSlot};
use crate::stream::{Seq, StreamKey, StreamKind};
use crate::time::Timestamp;

/// Most bytes of one memory's text.
pub const TEXT_LIMIT: usize = 64 << 10;
/// Highest importance of a memory.
pub const IMPORTANCE_LIMIT: u16 = 1000;
/// Importance of a memory that none was given for.
pub const IMPORTANCE_DEFAULT: u16 = 500;
/// Most memories of one subject, forgotten ones not counted.
pub const MEMORIES_LIMIT: usize = 100_000;

/// Returns the stream of a subject's memories.
pub fn memory_stream(tenant: &TenantId, subject: &Subject) -> StreamKey {
    let id = derive_uuid(&["memory/v1", tenant.as_str(), subject.as_str(), "stream"]);
    StreamKey { tenant: tenant.clone(), kind: StreamKind::Memory, id }
}

/// A memory as it is recalled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecalledMemory {
    /// Identity of the memory.
    pub id: MemoryId,
    /// Text of the memory.
    pub text: String,
    /// Tokens that the text takes of a prompt, estimated high.
    pub tokens: u32,
    /// Importance from 0 to 1000.
    pub importance: u16,
    /// Time of storage.
    pub stored: Timestamp,
    /// Fit with the query, from 0 to 1.
    pub score: f64,
}

/// Estimates the tokens of a text, on the high side: one for every three bytes.
pub fn estimate_tokens(text: &str) -> u32 {
    u32::try_from(text.len() / 3 + 1).unwrap_or(u32::MAX)
}

/// Decider of the memory stream.
#[derive(Debug, Clone, Copy)]
pub struct MemoryNoun;

/// State of a subject's memory stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryState {
    /// Every memory that was ever stored, so that a repeated command changes nothing.
    pub memories: BTreeMap<MemoryId, MemoryEntry>,
    remembered_count: usize,
}

/// State of one memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEntry {
    /// Reference to its text, which may have been erased.
    pub text: PayloadRef,
    /// True if it must no longer be recalled.
    pub is_forgotten: bool,
}

/// Commands of the memory stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryStreamCommand {
    /// Stores a memory. The same id again changes nothing.
    Store {
        /// Identity of the new memory.
        memory: MemoryId,
        /// Subject of the stream.
        subject: Subject,
        /// Text, stored as a payload.
        text: PayloadSlot,
        /// Tokens that the text takes of a prompt.
        tokens: u32,
        /// Importance from 0 to 1000.
        importance: u16,
    },
    /// Forgets a memory. An unknown one counts as forgotten.
    Forget {
        /// Identity of the memory.
        memory: MemoryId,
    },
}

/// Rejection of a memory command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryRejection {
    /// The text is empty or too long.
    #[error("a memory has 1 to {TEXT_LIMIT} bytes of text")]
    Text,
    /// The importance is above [`IMPORTANCE_LIMIT`].
    #[error("an importance is from 0 to 1000")]
    Importance,
    /// The subject has [`MEMORIES_LIMIT`] memories.
    #[error("a subject has at most 100000 memories: forget some")]
    Full,
}

impl Decider for MemoryNoun {
    type State = MemoryState;
    type Command = MemoryStreamCommand;
    type Event = MemoryEvent;
    type Rejection = MemoryRejection;

    fn decide(
        state: &MemoryState,
        command: MemoryStreamCommand,
        _context: &DecisionContext,
        next: Seq,
    ) -> Result<Vec<MemoryEvent>, MemoryRejection> {
        match command {
            MemoryStreamCommand::Store { memory, subject, text, tokens, importance } => {
                if importance > IMPORTANCE_LIMIT {
                    return Err(MemoryRejection::Importance);
                }
                // Also if it was forgotten: a repeated command must not bring it back.
                if state.memories.contains_key(&memory) {
                    return Ok(Vec::new());
                }
                if state.remembered_count >= MEMORIES_LIMIT {
                    return Err(MemoryRejection::Full);
                }
                let text = text.to_payload_ref(next);
                Ok(vec![MemoryEvent::MemoryStored(MemoryStoredEvent {
                    memory,
                    subject,
                    text,
                    tokens,
                    importance,
                })])
            }
            MemoryStreamCommand::Forget { memory } => match state.memories.get(&memory) {
                Some(MemoryEntry { is_forgotten: false, .. }) => {
                    Ok(vec![MemoryEvent::MemoryForgotten(MemoryForgottenEvent { memory })])
                }
                _ => Ok(Vec::new()),
            },
        }
    }

    fn evolve(state: &mut MemoryState, recorded: RecordedEvent<'_, MemoryEvent>) {
        match recorded.event {
            MemoryEvent::MemoryStored(event) => {
                let kept = MemoryEntry { text: event.text, is_forgotten: false };
                state.memories.insert(event.memory, kept);
                state.remembered_count += 1;
            }
            MemoryEvent::MemoryForgotten(event) => {
                if let Some(kept) = state.memories.get_mut(&event.memory) {
                    kept.is_forgotten = true;
                }
                state.remembered_count = state.remembered_count.saturating_sub(1);
            }
        }
    }

    fn next_wake(_state: &MemoryState) -> Wake {
        Wake::Done
    }
}
