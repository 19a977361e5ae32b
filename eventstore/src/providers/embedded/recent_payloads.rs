//! Cache of payloads that were written a moment ago, as plaintext: a reader that continues from a
//! commit need not read and decrypt what this process has just sealed. Only the writer adds and
//! removes, in the order of the log, so the cache never holds a payload that the log does not.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use convergio_domain::payload::{PayloadRef, PayloadSlot};
use convergio_domain::stream::{Seq, StreamKey};

use crate::seal::Opening;

/// Maximum bytes of the cache; the oldest stream is evicted first.
const RECENT_BYTES: usize = 1 << 20;
/// Estimated overhead of an entry in bytes.
const ENTRY_BYTES: usize = 200;

#[derive(Default)]
struct RecentOpenings {
    streams: HashMap<StreamKey, Vec<(PayloadRef, Opening)>>,
    order: VecDeque<StreamKey>,
    bytes: usize,
}

/// Thread-safe cache of recent payloads by stream.
#[derive(Default)]
pub(super) struct RecentPayloads(Mutex<RecentOpenings>);

impl RecentPayloads {
    fn lock_openings(&self) -> MutexGuard<'_, RecentOpenings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds payloads of a commit whose first event has this sequence number.
    pub(super) fn add_payloads(&self, stream: &StreamKey, seq: Seq, openings: Vec<(u16, Opening)>) {
        if openings.is_empty() {
            return;
        }
        let mut kept = self.lock_openings();
        kept.bytes += openings.iter().map(|(_, opening)| entry_size(opening)).sum::<usize>();
        let openings = openings
            .into_iter()
            .map(|(index, opening)| (PayloadSlot(index).to_payload_ref(seq), opening));
        match kept.streams.get_mut(stream) {
            Some(known) => known.extend(openings),
            None => {
                let openings = openings.collect();
                kept.streams.insert(stream.clone(), openings);
                kept.order.push_back(stream.clone());
            }
        }
        // Whole streams are evicted, so that `order` needs one entry per stream only.
        while kept.bytes > RECENT_BYTES {
            let Some(oldest) = kept.order.pop_front() else { return };
            kept.remove(&oldest);
        }
    }

    /// Returns the payload if it is cached.
    pub(super) fn find_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Option<Opening> {
        let kept = self.lock_openings();
        let mut openings = kept.streams.get(stream)?.iter();
        openings.find(|(other, _)| *other == reference).map(|(_, opening)| opening.clone())
    }

    /// Removes a stream's payloads, because one of them is being erased.
    pub(super) fn forget_stream(&self, stream: &StreamKey) {
        let mut kept = self.lock_openings();
        kept.remove(stream);
        kept.order.retain(|other| other != stream);
    }

    /// Empties the cache, because the last additions were rolled back.
    pub(super) fn forget_all(&self) {
        *self.lock_openings() = RecentOpenings::default();
    }
}

impl RecentOpenings {
    fn remove(&mut self, stream: &StreamKey) {
        let gone = self.streams.remove(stream).unwrap_or_default();
        self.bytes -= gone.iter().map(|(_, opening)| entry_size(opening)).sum::<usize>();
    }
}

fn entry_size(opening: &Opening) -> usize {
    opening.bytes.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use convergio_domain::payload::PayloadSlot;
    use convergio_domain::stream::{Seq, StreamKey};
    use uuid::Uuid;

    use super::{Opening, RECENT_BYTES, RecentPayloads};

    fn stream(number: u128) -> StreamKey {
        StreamKey::for_request("acme".parse().expect("a name"), Uuid::from_u128(number))
    }

    fn opening(bytes: usize) -> Opening {
        Opening { bytes: Bytes::from(vec![7; bytes]), salt: [1; 32] }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let fresh = RecentPayloads::default();
        for number in 0..10 {
            fresh.add_payloads(&stream(number), Seq(1), vec![(0, opening(RECENT_BYTES / 4))]);
            fresh.add_payloads(&stream(number), Seq(2), vec![(1, opening(8))]);
        }
        let at = |seq, index| PayloadSlot(index).to_payload_ref(Seq(seq));
        assert_eq!(fresh.find_payload(&stream(0), at(1, 0)), None);
        assert_eq!(fresh.find_payload(&stream(9), at(1, 0)), Some(opening(RECENT_BYTES / 4)));
        assert_eq!(fresh.find_payload(&stream(9), at(2, 1)), Some(opening(8)));
        assert_eq!(fresh.find_payload(&stream(9), at(2, 0)), None);
        assert!(fresh.lock_openings().bytes <= RECENT_BYTES);
        fresh.forget_stream(&stream(9));
        assert_eq!(fresh.find_payload(&stream(9), at(2, 1)), None);
        fresh.forget_all();
        assert_eq!(fresh.lock_openings().bytes, 0);
    }
}
