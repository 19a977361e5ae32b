//! Payloads: what people wrote and models answered. Their bytes lie sealed outside the log; events
//! carry references, and the record carries a commitment for each.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::stream::Seq;
use crate::written::written_as_text;

/// The place of a payload in a stream: the `index`-th payload of the commit whose first event has
/// sequence number `seq`. Written `SEQ.INDEX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayloadRef {
    /// Sequence number of the first event of the commit that carried the payload.
    pub seq: Seq,
    /// Index among that commit's payloads.
    pub index: u16,
}

written_as_text!(PayloadRef);

/// A payload of the commit that is being decided, by its index. Becomes a [`PayloadRef`] in an
/// event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadSlot(pub u16);

impl PayloadSlot {
    /// The reference, given the sequence number of the commit's first event.
    pub fn at(self, first_seq: Seq) -> PayloadRef {
        PayloadRef { seq: first_seq, index: self.0 }
    }
}

/// A text that is not a payload reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a payload reference: use SEQ.INDEX")]
pub struct InvalidPayloadRef(String);

impl fmt::Display for PayloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seq, self.index)
    }
}

impl FromStr for PayloadRef {
    type Err = InvalidPayloadRef;
    fn from_str(text: &str) -> Result<Self, InvalidPayloadRef> {
        let invalid = || InvalidPayloadRef(text.chars().take(40).collect());
        let (seq, index) = text.split_once('.').ok_or_else(invalid)?;
        let seq = Seq(seq.parse().map_err(|_| invalid())?);
        Ok(Self { seq, index: index.parse().map_err(|_| invalid())? })
    }
}

impl TryFrom<String> for PayloadRef {
    type Error = InvalidPayloadRef;
    fn try_from(text: String) -> Result<Self, InvalidPayloadRef> {
        text.parse()
    }
}

impl From<PayloadRef> for String {
    fn from(reference: PayloadRef) -> String {
        reference.to_string()
    }
}

/// Why a payload was kept; decides who may open it and for how long it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A graph manifest, as canonical JSON.
    Manifest,
    /// The inputs of a run, as a JSON object.
    Input,
    /// The exact request that a model was sent.
    Prompt,
    /// The output of a step, as JSON.
    Output,
    /// The output of a whole run, as JSON.
    Result,
    /// What an agent remembers.
    Memory,
    /// What an outside event carried, as JSON.
    Signal,
    /// The models that a router chose from, as JSON; nothing that a person wrote.
    Candidates,
    /// What was answered to a request under an idempotency key.
    Answer,
    /// The full text of a failure, a JSON text: it may quote what people wrote.
    FailureDetail,
    /// Why a person steered a run, or what a mark is for: a JSON text in that person's words.
    Reason,
}
