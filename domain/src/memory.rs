//! The memory noun: what agents remember of one subject. Texts are payloads; how well one fits a
//! question is not decided here but by the index that is folded from these events.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::decider::{Context, Decider, Recorded, Wake};
use crate::event::Event;
use crate::event::memory::{Forgotten, Stored};
use crate::id::TenantId;
use crate::payload::{PayloadRef, PayloadSlot};
use crate::request::derived_uuid;
use crate::stream::{Seq, StreamKey, StreamKind};
use crate::time::Timestamp;

/// Bytes of one memory's text.
pub const TEXT_LIMIT: usize = 64 << 10;
/// The highest importance.
pub const IMPORTANCE_LIMIT: u16 = 1000;
/// The importance of what nobody weighed.
pub const IMPORTANCE_DEFAULT: u16 = 500;
/// Memories of one subject.
pub const MEMORIES_LIMIT: usize = 100_000;
/// Characters of a subject.
const SUBJECT_LIMIT: usize = 128;

/// One memory.
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
    /// The id of what a call stores: the same call again is the same memory.
    pub fn of_call(tenant: &TenantId, origin: &str) -> Self {
        Self(derived_uuid(&["memory/v1", tenant.as_str(), origin]))
    }
}

/// Whom or what a memory is about: a pseudonymous name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(String);

/// A text that cannot name a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a subject has 1 to 128 of the characters a-z A-Z 0-9 . _ : @ / -")]
pub struct InvalidSubject;

impl Subject {
    /// The name.
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

/// The stream of a subject's memories.
pub fn stream(tenant: &TenantId, subject: &Subject) -> StreamKey {
    let id = derived_uuid(&["memory/v1", tenant.as_str(), subject.as_str(), "stream"]);
    StreamKey { tenant: tenant.clone(), kind: StreamKind::Memory, id }
}

/// A memory as it is recalled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Which one.
    pub id: MemoryId,
    /// What it says.
    pub text: String,
    /// What it takes of a prompt, in tokens.
    pub tokens: u32,
    /// From 0 to 1000.
    pub importance: u16,
    /// When it was stored.
    pub stored: Timestamp,
    /// How well it fits the question, from 0 to 1.
    pub score: f64,
}

/// Tokens of a text, estimated high: one for every three bytes.
pub fn tokens(text: &str) -> u32 {
    u32::try_from(text.len() / 3 + 1).unwrap_or(u32::MAX)
}

/// The rules of a memory.
#[derive(Debug, Clone, Copy)]
pub struct Memory;

/// What is remembered of a subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Every memory that was stored.
    pub memories: BTreeMap<MemoryId, Kept>,
    kept: usize,
}

/// What is known of a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Where its text lies, or lay.
    pub text: PayloadRef,
    /// Whether it is to be remembered no longer.
    pub is_forgotten: bool,
}

/// What can be asked of a memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Something is to be remembered. The same id again changes nothing.
    Store {
        /// Which memory.
        memory: MemoryId,
        /// Whom or what it is about.
        subject: Subject,
        /// What it says.
        text: PayloadSlot,
        /// What it takes of a prompt.
        tokens: u32,
        /// From 0 to 1000.
        importance: u16,
    },
    /// It is to be forgotten. What is not there is forgotten already.
    Forget {
        /// Which memory.
        memory: MemoryId,
    },
}

/// Why a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A text is bounded.
    #[error("a memory has 1 to {TEXT_LIMIT} bytes of text")]
    Text,
    /// Importance is bounded.
    #[error("an importance is from 0 to 1000")]
    Importance,
    /// A subject's memory is bounded.
    #[error("a subject has at most 100000 memories: forget some")]
    Full,
}

impl Decider for Memory {
    type State = State;
    type Command = Command;
    type Rejection = Rejection;

    fn decide(
        state: &State,
        command: Command,
        _context: &Context,
        next: Seq,
    ) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Store { memory, subject, text, tokens, importance } => {
                if importance > IMPORTANCE_LIMIT {
                    return Err(Rejection::Importance);
                }
                if state.memories.contains_key(&memory) {
                    return Ok(Vec::new());
                }
                if state.kept >= MEMORIES_LIMIT {
                    return Err(Rejection::Full);
                }
                let text = text.at(next);
                Ok(vec![Event::MemoryStored(Stored { memory, subject, text, tokens, importance })])
            }
            Command::Forget { memory } => match state.memories.get(&memory) {
                Some(Kept { is_forgotten: false, .. }) => {
                    Ok(vec![Event::MemoryForgotten(Forgotten { memory })])
                }
                _ => Ok(Vec::new()),
            },
        }
    }

    fn evolve(state: &mut State, recorded: Recorded<'_>) {
        match recorded.event {
            Event::MemoryStored(event) => {
                let kept = Kept { text: event.text, is_forgotten: false };
                state.memories.insert(event.memory, kept);
                state.kept += 1;
            }
            Event::MemoryForgotten(event) => {
                if let Some(kept) = state.memories.get_mut(&event.memory) {
                    kept.is_forgotten = true;
                }
                state.kept = state.kept.saturating_sub(1);
            }
            _ => {}
        }
    }

    fn wake(_state: &State) -> Wake {
        Wake::Done
    }
}
