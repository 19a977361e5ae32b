//! A bounded cache of stream heads. It serves as a hint for where to look, or as proof that one
//! record exists; absence proves nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use convergio_domain::stream::{Seq, StreamKey};

use crate::record::StreamHead;

/// Streams per generation. Two generations are kept, so memory is bounded without tracking use.
const GENERATION_STREAMS: usize = 20_000;

/// Heads that were seen: per stream the newest one, and the end of the last read.
#[derive(Default)]
pub(crate) struct HeadCache {
    generations: Mutex<HeadGenerations>,
}

#[derive(Default)]
struct HeadGenerations {
    young: HashMap<StreamKey, KnownHead>,
    old: HashMap<StreamKey, KnownHead>,
}

#[derive(Clone, Copy)]
struct KnownHead {
    newest: StreamHead,
    cursor: StreamHead,
}

impl HeadCache {
    /// Returns the newest head seen of a stream.
    pub(crate) fn newest_head(&self, stream: &StreamKey) -> Option<StreamHead> {
        self.get(stream).map(|known| known.newest)
    }

    /// Returns the head that ends with this event, if it was seen lately.
    pub(crate) fn head_ending_at(&self, stream: &StreamKey, seq: Seq) -> Option<StreamHead> {
        let known = self.get(stream)?;
        [known.newest, known.cursor].into_iter().find(|head| head.seq == seq)
    }

    /// Remembers the end of a record.
    pub(crate) fn remember_head(&self, stream: &StreamKey, head: StreamHead) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let known = generations.find_head(stream);
        // Reads of old pages arrive after appends: they move the cursor, not the newest head.
        let newest = known.map_or(head, |known| match known.newest.position > head.position {
            true => known.newest,
            false => head,
        });
        if generations.young.len() >= GENERATION_STREAMS {
            // The older generation is dropped as a whole; streams in use are in the younger one.
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(stream.clone(), KnownHead { newest, cursor: head });
    }

    fn get(&self, stream: &StreamKey) -> Option<KnownHead> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).find_head(stream)
    }
}

impl HeadGenerations {
    fn find_head(&self, stream: &StreamKey) -> Option<KnownHead> {
        self.young.get(stream).or_else(|| self.old.get(stream)).copied()
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::stream::{Seq, StreamKey};

    use super::{GENERATION_STREAMS, HeadCache};
    use crate::record::{Position, StreamHead};

    #[test]
    fn the_newest_and_the_last_read_are_known_and_memory_is_bounded() {
        let heads = HeadCache::default();
        let tenant: convergio_domain::id::TenantId = "t".parse().unwrap();
        let head = |n| StreamHead { position: Position(n), seq: Seq(n), hash: [0; 32] };
        let stream = |n| StreamKey::for_request(tenant.clone(), uuid::Uuid::from_u128(n));
        heads.remember_head(&stream(1), head(9));
        heads.remember_head(&stream(1), head(4));
        assert_eq!(heads.newest_head(&stream(1)), Some(head(9)));
        assert_eq!(heads.head_ending_at(&stream(1), Seq(4)), Some(head(4)));
        assert_eq!(heads.head_ending_at(&stream(1), Seq(5)), None);
        for n in 0..3 * GENERATION_STREAMS as u128 {
            heads.remember_head(&stream(n + 2), head(1));
        }
        let generations = heads.generations.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_STREAMS);
    }
}
