//! Events of a memory, version 1: what is remembered of one subject.

use serde::{Deserialize, Serialize};

use crate::memory::{MemoryId, Subject};
use crate::payload::PayloadRef;

/// `memory.stored.v1`: something is remembered from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Which memory.
    pub memory: MemoryId,
    /// Whom or what it is about.
    pub subject: Subject,
    /// What it says.
    pub text: PayloadRef,
    /// What it takes of a prompt, in tokens, estimated high.
    pub tokens: u32,
    /// From 0 to 1000.
    pub importance: u16,
}

/// `memory.forgotten.v1`: it is remembered no longer; its text is erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Which memory.
    pub memory: MemoryId,
}
