//! A bounded cache of stream heads. It serves as a hint for where to look, or as proof that one
//! record exists; absence proves nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use convergio_domain::stream::{Seq, StreamKey};

use crate::record::Head;

/// Streams per generation. Two generations are kept, so memory is bounded without tracking use.
const GENERATION: usize = 20_000;

/// Heads that were seen: per stream the newest one, and the end of the last read.
#[derive(Default)]
pub(crate) struct KnownHeads {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<StreamKey, Known>,
    old: HashMap<StreamKey, Known>,
}

#[derive(Clone, Copy)]
struct Known {
    newest: Head,
    cursor: Head,
}

impl KnownHeads {
    /// Returns the newest head seen of a stream.
    pub(crate) fn newest(&self, stream: &StreamKey) -> Option<Head> {
        self.get(stream).map(|known| known.newest)
    }

    /// Returns the head that ends with this event, if it was seen lately.
    pub(crate) fn ending_with(&self, stream: &StreamKey, seq: Seq) -> Option<Head> {
        let known = self.get(stream)?;
        [known.newest, known.cursor].into_iter().find(|head| head.seq == seq)
    }

    /// Remembers the end of a record.
    pub(crate) fn saw(&self, stream: &StreamKey, head: Head) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let known = generations.find(stream);
        // Reads of old pages arrive after appends: they move the cursor, not the newest head.
        let newest = known.map_or(head, |known| match known.newest.position > head.position {
            true => known.newest,
            false => head,
        });
        if generations.young.len() >= GENERATION {
            // The older generation is dropped as a whole; streams in use are in the younger one.
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(stream.clone(), Known { newest, cursor: head });
    }

    fn get(&self, stream: &StreamKey) -> Option<Known> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).find(stream)
    }
}

impl Generations {
    fn find(&self, stream: &StreamKey) -> Option<Known> {
        self.young.get(stream).or_else(|| self.old.get(stream)).copied()
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::stream::{Seq, StreamKey};

    use super::{GENERATION, KnownHeads};
    use crate::record::{Head, Position};

    #[test]
    fn the_newest_and_the_last_read_are_known_and_memory_is_bounded() {
        let heads = KnownHeads::default();
        let tenant: convergio_domain::id::TenantId = "t".parse().unwrap();
        let head = |n| Head { position: Position(n), seq: Seq(n), hash: [0; 32] };
        let stream = |n| StreamKey::request(tenant.clone(), uuid::Uuid::from_u128(n));
        heads.saw(&stream(1), head(9));
        heads.saw(&stream(1), head(4));
        assert_eq!(heads.newest(&stream(1)), Some(head(9)));
        assert_eq!(heads.ending_with(&stream(1), Seq(4)), Some(head(4)));
        assert_eq!(heads.ending_with(&stream(1), Seq(5)), None);
        for n in 0..3 * GENERATION as u128 {
            heads.saw(&stream(n + 2), head(1));
        }
        let generations = heads.generations.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
    }
}
