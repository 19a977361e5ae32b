//! Deduplication of payloads within a stream: text that earlier payloads hold is stored once. The
//! prompts of an agent form a chain: each is the previous one, cut somewhere, with new text in the
//! middle and the same end.
//!
//! The commitment covers the whole text, so that an assembled payload is checked against the hash
//! chain. A payload that others are deltas of is part of them: erasing it erases them too.
//!
//! Map: this file is the form of a [`PayloadDelta`], which the hash chain holds. `source_cache`
//! finds deltas when a commit is prepared, by `matching` texts; `assembly` puts a payload together
//! when it is read. Encryption (`seal`) comes after deduplication and is not known here.

mod assembly;
mod matching;
mod source_cache;

use convergio_domain::payload::PayloadRef;
use serde::{Deserialize, Serialize};

pub(crate) use assembly::PayloadAssembly;
pub(crate) use source_cache::DeltaSourceCache;

/// Maximum length of a chain of deltas; the next payload is stored whole.
pub(crate) const DEPTH_LIMIT: u16 = 512;
/// Maximum number of copies in one payload.
pub(crate) const COPIES_LIMIT: usize = 16;

/// Parts of a payload that earlier payloads of its stream hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PayloadDelta {
    /// Earlier payload that has the same beginning and end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<DeltaBase>,
    /// Copies from other payloads between them, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotes: Vec<DeltaCopy>,
}

/// The earlier payload that a delta starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaBase {
    /// Reference of the earlier payload.
    pub from: PayloadRef,
    /// Number of leading bytes that both share.
    pub prefix: u64,
    /// Number of trailing bytes that both share.
    pub suffix: u64,
    /// Length of the chain of deltas below this payload.
    pub depth: u16,
}

/// A range of an earlier payload that is stored whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaCopy {
    /// Reference of the earlier payload.
    pub from: PayloadRef,
    /// Offset of the range in the earlier payload.
    pub start: u64,
    /// Offset of the range in this payload.
    pub at: u64,
    /// Length of the range in bytes.
    pub bytes: u64,
}

impl PayloadDelta {
    /// Returns the ranges of a text of `length` bytes that no other payload holds; `None` if the
    /// delta does not fit that length.
    pub(crate) fn stored_ranges(&self, length: usize) -> Option<Vec<std::ops::Range<usize>>> {
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

    /// Returns the bytes of a text that no other payload holds, which are stored.
    pub(crate) fn stored_bytes(&self, text: &[u8]) -> Option<Vec<u8>> {
        let parts = self.stored_ranges(text.len())?;
        Some(parts.into_iter().flat_map(|part| &text[part]).copied().collect())
    }
}
