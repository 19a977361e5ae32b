//! Cache of payloads that were written a moment ago, as plaintext: a reader that continues from a
//! commit need not read and decrypt what this process has just sealed. Only the writer adds and
//! removes, in the order of the log, so the cache never holds a payload that the log does not.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use convergio_domain::payload::{PayloadRef, PayloadSlot};
use convergio_domain::stream::{Seq, StreamKey};

use crate::seal::Opening;

/// Maximum bytes of the cache; the oldest stream is evicted first.
const BYTES: usize = 1 << 20;
/// Estimated overhead of an entry in bytes.
const ENTRY_BYTES: usize = 200;

#[derive(Default)]
struct Kept {
    streams: HashMap<StreamKey, Vec<(PayloadRef, Opening)>>,
    order: VecDeque<StreamKey>,
    bytes: usize,
}

/// Thread-safe cache of recent payloads by stream.
#[derive(Default)]
pub(super) struct Fresh(Mutex<Kept>);

impl Fresh {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds payloads of a commit whose first event has this sequence number.
    pub(super) fn add(&self, stream: &StreamKey, seq: Seq, openings: Vec<(u16, Opening)>) {
        if openings.is_empty() {
            return;
        }
        let mut kept = self.lock();
        kept.bytes += openings.iter().map(|(_, opening)| size(opening)).sum::<usize>();
        let openings =
            openings.into_iter().map(|(index, opening)| (PayloadSlot(index).at(seq), opening));
        match kept.streams.get_mut(stream) {
            Some(known) => known.extend(openings),
            None => {
                let openings = openings.collect();
                kept.streams.insert(stream.clone(), openings);
                kept.order.push_back(stream.clone());
            }
        }
        // Whole streams are evicted, so that `order` needs one entry per stream only.
        while kept.bytes > BYTES {
            let Some(oldest) = kept.order.pop_front() else { return };
            kept.remove(&oldest);
        }
    }

    /// Returns the payload if it is cached.
    pub(super) fn find(&self, stream: &StreamKey, reference: PayloadRef) -> Option<Opening> {
        let kept = self.lock();
        let mut openings = kept.streams.get(stream)?.iter();
        openings.find(|(other, _)| *other == reference).map(|(_, opening)| opening.clone())
    }

    /// Removes a stream's payloads, because one of them is being erased.
    pub(super) fn forget(&self, stream: &StreamKey) {
        let mut kept = self.lock();
        kept.remove(stream);
        kept.order.retain(|other| other != stream);
    }

    /// Empties the cache, because the last additions were rolled back.
    pub(super) fn clear(&self) {
        *self.lock() = Kept::default();
    }
}

impl Kept {
    fn remove(&mut self, stream: &StreamKey) {
        let gone = self.streams.remove(stream).unwrap_or_default();
        self.bytes -= gone.iter().map(|(_, opening)| size(opening)).sum::<usize>();
    }
}

fn size(opening: &Opening) -> usize {
    opening.bytes.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use convergio_domain::payload::PayloadSlot;
    use convergio_domain::stream::{Seq, StreamKey};
    use uuid::Uuid;

    use super::{BYTES, Fresh, Opening};

    fn stream(number: u128) -> StreamKey {
        StreamKey::request("acme".parse().expect("a name"), Uuid::from_u128(number))
    }

    fn opening(bytes: usize) -> Opening {
        Opening { bytes: Bytes::from(vec![7; bytes]), salt: [1; 32] }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let fresh = Fresh::default();
        for number in 0..10 {
            fresh.add(&stream(number), Seq(1), vec![(0, opening(BYTES / 4))]);
            fresh.add(&stream(number), Seq(2), vec![(1, opening(8))]);
        }
        let at = |seq, index| PayloadSlot(index).at(Seq(seq));
        assert_eq!(fresh.find(&stream(0), at(1, 0)), None);
        assert_eq!(fresh.find(&stream(9), at(1, 0)), Some(opening(BYTES / 4)));
        assert_eq!(fresh.find(&stream(9), at(2, 1)), Some(opening(8)));
        assert_eq!(fresh.find(&stream(9), at(2, 0)), None);
        assert!(fresh.lock().bytes <= BYTES);
        fresh.forget(&stream(9));
        assert_eq!(fresh.find(&stream(9), at(2, 1)), None);
        fresh.clear();
        assert_eq!(fresh.lock().bytes, 0);
    }
}
