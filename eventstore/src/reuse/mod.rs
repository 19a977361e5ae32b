//! What a payload shares with earlier ones of its stream, so that it is stored once. A transcript
//! is a chain of payloads, each of which holds what is new: a prompt is the one before it, cut
//! somewhere, with something new, and the end of the one before.
//!
//! The commitment is over the whole text, so what is put together is checked against the chain.
//! What others are built on is part of them: when it is erased, so are they.

mod assembly;
mod matching;
mod recent;

use convergio_domain::payload::PayloadRef;
use serde::{Deserialize, Serialize};

pub(crate) use assembly::Assembly;
pub(crate) use recent::Recent;

/// Payloads that hang on each other in a row, at most; then one is stored whole.
pub(crate) const DEPTH_LIMIT: u16 = 512;
/// Quotes in one payload.
pub(crate) const QUOTES_LIMIT: usize = 16;

/// What of a payload is stored elsewhere in its stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reuse {
    /// The payload whose beginning and end it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// What between them is said by other payloads, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotes: Vec<Quote>,
}

/// An earlier payload with the same beginning and end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Which one.
    pub from: PayloadRef,
    /// Bytes that both begin with.
    pub prefix: u64,
    /// Bytes that both end with.
    pub suffix: u64,
    /// How many payloads this one hangs on, one behind the other.
    pub depth: u16,
}

/// Bytes of an earlier payload that is stored whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// Which one.
    pub from: PayloadRef,
    /// Where they begin there.
    pub start: u64,
    /// Where they begin here.
    pub at: u64,
    /// How many.
    pub bytes: u64,
}

impl Reuse {
    /// The parts of a text of `length` bytes that are its own; `None` if the rule does not fit it.
    pub(crate) fn own_parts(&self, length: usize) -> Option<Vec<std::ops::Range<usize>>> {
        let (prefix, suffix) = match &self.base {
            Some(base) => (usize::try_from(base.prefix).ok()?, usize::try_from(base.suffix).ok()?),
            None => (0, 0),
        };
        let end = length.checked_sub(suffix)?;
        let mut at = prefix;
        let mut parts = Vec::with_capacity(self.quotes.len() + 1);
        for quote in &self.quotes {
            let begin = usize::try_from(quote.at).ok()?;
            if begin < at {
                return None;
            }
            parts.push(at..begin);
            at = begin.checked_add(usize::try_from(quote.bytes).ok()?)?;
        }
        if at > end {
            return None;
        }
        parts.push(at..end);
        Some(parts)
    }

    /// What of a text is its own, to be stored.
    pub(crate) fn own(&self, text: &[u8]) -> Option<Vec<u8>> {
        let parts = self.own_parts(text.len())?;
        Some(parts.into_iter().flat_map(|part| &text[part]).copied().collect())
    }
}
