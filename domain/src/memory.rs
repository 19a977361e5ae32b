//! The memory noun: what agents remember of one subject, in one stream a subject.
//!
//! Texts are payloads. How well a memory fits a query is not decided here but by the index that is
//! folded from these events.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::decider::{Decider, DecisionContext, RecordedEvent, Wake};
use crate::event::Event;
use crate::event::memory::{MemoryForgottenEvent, MemoryStoredEvent};
use crate::id::TenantId;
use crate::payload::{PayloadRef, PayloadSlot};
use crate::request::derive_uuid;
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
/// Most characters of a subject.
const SUBJECT_LIMIT: usize = 128;

/// Identity of one memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemoryId(pub Uuid);

impl fmt::Display for MemoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MemoryId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

impl MemoryId {
    /// Derives the id of what a call stores: the same call repeated is the same memory.
    pub fn from_call(tenant: &TenantId, origin: &str) -> Self {
        Self(derive_uuid(&["memory/v1", tenant.as_str(), origin]))
    }
}

/// Person or thing that a memory is about: a pseudonymous name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(String);

/// Error of a text that cannot name a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a subject has 1 to 128 of the characters a-z A-Z 0-9 . _ : @ / -")]
pub struct InvalidSubject;

impl Subject {
    /// The pseudonymous name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;
    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let is_right = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@/-".contains(&byte);
        let fits = (1..=SUBJECT_LIMIT).contains(&text.len()) && text.bytes().all(is_right);
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidSubject) }
    }
}

impl TryFrom<String> for Subject {
    type Error = InvalidSubject;
    fn try_from(text: String) -> Result<Self, InvalidSubject> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.0
    }
}

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
    type Rejection = MemoryRejection;

    fn decide(
        state: &MemoryState,
        command: MemoryStreamCommand,
        _context: &DecisionContext,
        next: Seq,
    ) -> Result<Vec<Event>, MemoryRejection> {
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
                Ok(vec![Event::MemoryStored(MemoryStoredEvent {
                    memory,
                    subject,
                    text,
                    tokens,
                    importance,
                })])
            }
            MemoryStreamCommand::Forget { memory } => match state.memories.get(&memory) {
                Some(MemoryEntry { is_forgotten: false, .. }) => {
                    Ok(vec![Event::MemoryForgotten(MemoryForgottenEvent { memory })])
                }
                _ => Ok(Vec::new()),
            },
        }
    }

    fn evolve(state: &mut MemoryState, recorded: RecordedEvent<'_>) {
        match recorded.event {
            Event::MemoryStored(event) => {
                let kept = MemoryEntry { text: event.text, is_forgotten: false };
                state.memories.insert(event.memory, kept);
                state.remembered_count += 1;
            }
            Event::MemoryForgotten(event) => {
                if let Some(kept) = state.memories.get_mut(&event.memory) {
                    kept.is_forgotten = true;
                }
                state.remembered_count = state.remembered_count.saturating_sub(1);
            }
            _ => {}
        }
    }

    fn next_wake(_state: &MemoryState) -> Wake {
        Wake::Done
    }
}
