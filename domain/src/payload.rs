//! References to payloads: the texts of people and models.
//!
//! Their bytes are sealed outside the log so that they can be erased. Events carry references, and
//! each record carries a commitment to its payloads.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::serde_text::written_as_text;
use crate::stream::Seq;

/// Position of a payload in a stream: the `index`-th payload of the commit whose first event has
/// sequence number `seq`. Text form: `SEQ.INDEX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayloadRef {
    /// Sequence number of the first event of the commit that carries the payload.
    pub seq: Seq,
    /// Index among that commit's payloads, from 0.
    pub index: u16,
}

written_as_text!(PayloadRef);

/// Index of a payload in the commit that is being decided. It becomes a [`PayloadRef`] once the
/// commit's position is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadSlot(pub u16);

impl PayloadSlot {
    /// Resolves the slot, given the sequence number of the commit's first event.
    pub fn to_payload_ref(self, first_seq: Seq) -> PayloadRef {
        PayloadRef { seq: first_seq, index: self.0 }
    }
}

/// A text that is not a payload reference. Quotes its first 40 characters.
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

/// Purpose for which a payload is stored. Determines who may open it and how long it is retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadPurpose {
    /// Graph manifest, as canonical JSON.
    Manifest,
    /// Inputs of a run, as a JSON object.
    Input,
    /// Request exactly as it is sent to a model.
    Prompt,
    /// Output of a step, as JSON.
    Output,
    /// Output of a whole run, as JSON.
    Result,
    /// Text that an agent remembers about a subject.
    Memory,
    /// Payload of an external event, as JSON.
    Signal,
    /// Models that the router chose from, as JSON. Contains no text of a person.
    Candidates,
    /// HTTP response body to a request under an idempotency key.
    Answer,
    /// Full text of a failure, as a JSON string; may quote personal data.
    FailureDetail,
    /// A person's reason for steering a run, or the label of a checkpoint, as a JSON string.
    Reason,
}
