//! Assembly of a payload from those that it is a delta of.

use std::collections::BTreeMap;

use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::StreamKey;

use super::{COPIES_LIMIT, DEPTH_LIMIT, PayloadDelta};
use crate::error::LogError;
use crate::record::PayloadMeta;
use crate::seal::{Opening, StoredPart, TenantKey, check_opening};

/// A payload as stored: its metadata and the part that no other payload holds.
struct StoredPayload {
    meta: PayloadMeta,
    part: StoredPart,
}

/// A payload in assembly: it asks for stored payloads until it has all.
pub(crate) struct PayloadAssembly {
    target: PayloadRef,
    stored: BTreeMap<PayloadRef, StoredPayload>,
    pending: Vec<PayloadRef>,
}

impl PayloadAssembly {
    pub(crate) fn new(target: PayloadRef) -> Self {
        Self { target, stored: BTreeMap::new(), pending: vec![target] }
    }

    /// Returns the next stored payload that is needed.
    pub(crate) fn next_wanted(&self) -> Option<PayloadRef> {
        self.pending.last().copied()
    }

    /// Adds the payload that [`Self::next_wanted`] asked for.
    ///
    /// # Errors
    /// The delta refers to a later payload, or to too many.
    pub(crate) fn add_stored(
        &mut self,
        meta: PayloadMeta,
        own: StoredPart,
    ) -> Result<(), LogError> {
        let Some(reference) = self.pending.pop() else { return Ok(()) };
        if let Some(reuse) = &meta.reuse {
            let sources = reuse.quotes.iter().map(|quote| quote.from);
            let sources = sources.chain(reuse.base.as_ref().map(|base| base.from));
            for source in sources {
                // References point backwards only, so assembly terminates even on a forged record.
                if source >= reference {
                    return Err(broken_payload(self.target, "it is built on a later one"));
                }
                if !self.stored.contains_key(&source) && !self.pending.contains(&source) {
                    self.pending.push(source);
                }
            }
        }
        // Bounds memory on a forged record; the writer's own limits stay below it.
        let limit = usize::from(DEPTH_LIMIT) * (COPIES_LIMIT + 1);
        if self.stored.len() + self.pending.len() > limit {
            return Err(broken_payload(self.target, "it is built on too many others"));
        }
        self.stored.insert(reference, StoredPayload { meta, part: own });
        Ok(())
    }

    /// Assembles the whole text and checks it against its commitment.
    pub(crate) fn into_opening(
        self,
        key: &TenantKey,
        stream: &StreamKey,
    ) -> Result<Opening, LogError> {
        let target = self.target;
        let (StoredPayload { meta, part: own }, text) = self.assemble_text()?;
        check_opening(key, stream, target, text, &own, &meta.commitment)
    }

    fn assemble_text(mut self) -> Result<(StoredPayload, Vec<u8>), LogError> {
        // From the payload back to the first of its chain; texts are then built forwards,
        // iteratively, because a chain may be hundreds of deltas deep.
        let mut chain = vec![self.target];
        while let Some(base) = chain.last().and_then(|last| self.base_reference(*last)) {
            chain.push(base);
        }
        let mut text = Vec::new();
        for reference in chain.iter().rev() {
            let built = self.build_text(text, *reference);
            text = built.ok_or_else(|| broken_payload(self.target, "its parts do not fit"))?;
        }
        let target = self.stored.remove(&self.target);
        let target = target.ok_or_else(|| broken_payload(self.target, "it is missing"))?;
        Ok((target, text))
    }

    fn base_reference(&self, reference: PayloadRef) -> Option<PayloadRef> {
        Some(self.stored.get(&reference)?.meta.reuse.as_ref()?.base.as_ref()?.from)
    }

    /// Builds a payload's text from that of its base. The text is changed in place: the shared
    /// prefix is not copied.
    fn build_text(&self, mut text: Vec<u8>, reference: PayloadRef) -> Option<Vec<u8>> {
        let StoredPayload { meta, part: own } = self.stored.get(&reference)?;
        let Some(reuse) = &meta.reuse else { return Some(own.bytes.clone()) };
        let length = usize::try_from(meta.bytes).ok()?;
        let parts = reuse.stored_ranges(length)?;
        let tail = match &reuse.base {
            Some(base) => {
                let suffix = usize::try_from(base.suffix).ok()?;
                let tail = text.get(text.len().checked_sub(suffix)?..)?.to_vec();
                text.get(..usize::try_from(base.prefix).ok()?)?;
                text.truncate(usize::try_from(base.prefix).ok()?);
                tail
            }
            None => {
                text.clear();
                Vec::new()
            }
        };
        let mut own = own.bytes.as_slice();
        let mut quotes = reuse.quotes.iter();
        for part in parts {
            let (piece, rest) = own.split_at_checked(part.len())?;
            text.extend_from_slice(piece);
            own = rest;
            if let Some(quote) = quotes.next() {
                text.extend_from_slice(self.copied_bytes(quote)?);
            }
        }
        text.extend_from_slice(&tail);
        (own.is_empty() && text.len() == length).then_some(text)
    }

    fn copied_bytes(&self, quote: &super::DeltaCopy) -> Option<&[u8]> {
        let StoredPayload { meta, part: own } = self.stored.get(&quote.from)?;
        let start = usize::try_from(quote.start).ok()?;
        let end = start.checked_add(usize::try_from(quote.bytes).ok()?)?;
        // Copies refer to payloads that are stored whole; a delta here would recurse.
        if meta.reuse.as_ref().is_some_and(|reuse| *reuse != PayloadDelta::default()) {
            return None;
        }
        own.bytes.get(start..end)
    }
}

fn broken_payload(target: PayloadRef, reason: &str) -> LogError {
    LogError::corrupt(&format!("payload {target}"), &reason)
}
