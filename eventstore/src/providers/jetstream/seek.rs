//! Seeking an event in a stream. The broker finds a stream's next message from a position on, but
//! has no index of sequence numbers, so positions are guessed: alternately by interpolation and by
//! bisection, which bounds the number of guesses by the logarithm of the log's length.

use convergio_domain::stream::{Seq, StreamKey};

use super::log_core::LogCore;
use super::wire;
use crate::error::LogError;
use crate::record::StreamHead;

/// Distance in events at which a record is near enough: the rest is read in one batch.
const NEAR_EVENTS: u64 = 64;

impl LogCore {
    /// Finds a record that ends at or shortly before an event of a stream; `None` is the stream's
    /// beginning. `head` is the stream's end, and is beyond `after`.
    pub(super) async fn head_near(
        &self,
        stream: &StreamKey,
        after: Seq,
        head: StreamHead,
    ) -> Result<Option<StreamHead>, LogError> {
        let subject = self.names.record_subject(stream);
        let mut bounds = SeekBounds { low: None, high: head.position.0, high_seq: head.seq.0 };
        for round in 0_u32.. {
            let Some(guess) = bounds.guess_position(after, round.is_multiple_of(2)) else { break };
            let next = self
                .retry_until_answered(|| self.api.next_message(&self.names.log, &subject, guess))
                .await?;
            let missing = || LogError::corrupt(stream, &format!("nothing at or after {guess}"));
            let (record, _) = wire::decode_message(&self.names, &next.ok_or_else(missing)?)?;
            bounds.narrow_bounds(after, guess, record.stream_head());
        }
        Ok(bounds.low)
    }
}

/// Bounds of the search for the last record that ends at or before an event.
#[derive(Debug)]
struct SeekBounds {
    /// Last known record that ends at or before the event.
    low: Option<StreamHead>,
    /// Position from which on every record of the stream ends after the event, and the last event
    /// of one of them.
    high: u64,
    high_seq: u64,
}

impl SeekBounds {
    /// Returns the next position to probe; `None` once `low` is near.
    fn guess_position(&self, after: Seq, by_proportion: bool) -> Option<u64> {
        let (position, seq) = self.low.map_or((0, 0), |low| (low.position.0, low.seq.0));
        let between = self.high.saturating_sub(position + 1);
        let missing = after.0.saturating_sub(seq);
        if missing <= NEAR_EVENTS || between == 0 {
            return None;
        }
        let skipped = if by_proportion {
            let events = u128::from(self.high_seq.saturating_sub(seq).max(1));
            // Aims short of the event, since a probe beyond it yields no lower bound.
            let wanted = u128::from(missing - NEAR_EVENTS / 2);
            u64::try_from(u128::from(between) * wanted / events).unwrap_or(between)
        } else {
            between / 2
        };
        Some(position + 1 + skipped.min(between - 1))
    }

    /// Narrows the bounds by the record that is the first at or after a guess.
    fn narrow_bounds(&mut self, after: Seq, guess: u64, found: StreamHead) {
        if found.seq <= after {
            self.low = Some(found);
        } else {
            (self.high, self.high_seq) = (guess, found.seq.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::stream::Seq;
    use proptest::prelude::{Strategy, prop};
    use proptest::{prop_assert, proptest};

    use super::{NEAR_EVENTS, SeekBounds};
    use crate::record::{Position, StreamHead};

    /// A stream's records: gaps between their positions, and events of each.
    fn heads() -> impl Strategy<Value = Vec<StreamHead>> {
        prop::collection::vec((1_u64..2000, 1_u64..90), 2..400).prop_map(|steps| {
            let mut head = StreamHead { position: Position(0), seq: Seq(0), hash: [0; 32] };
            let walk = steps.into_iter().map(|(gap, events)| {
                head.position.0 += gap;
                head.seq.0 += events;
                head
            });
            walk.collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_found_is_near_and_soon(
            heads in heads(),
            place in 0_usize..400,
            off in 0_u64..90,
        ) {
            let last = heads[heads.len() - 1];
            let seq = heads[place % heads.len()].seq.0.saturating_sub(off);
            let after = Seq(seq.min(last.seq.0 - 1));
            let (mut bounds, mut rounds) =
                (SeekBounds { low: None, high: last.position.0, high_seq: last.seq.0 }, 0);
            while let Some(guess) = bounds.guess_position(after, rounds % 2 == 0) {
                let found = heads.iter().find(|head| head.position.0 >= guess);
                let found = found.expect("the last one is behind every guess");
                bounds.narrow_bounds(after, guess, *found);
                rounds += 1;
            }
            let best = heads.iter().rev().find(|head| head.seq <= after);
            let seq_of = |head: Option<&StreamHead>| head.map_or(0, |head| head.seq.0);
            prop_assert!(bounds.low.is_none_or(|low| low.seq <= after));
            let is_best = bounds.low.as_ref() == best;
            let is_near = after.0 - seq_of(bounds.low.as_ref()) <= NEAR_EVENTS;
            prop_assert!(is_best || is_near, "{bounds:?}, best {best:?}");
            prop_assert!(rounds <= 2 * 20 + 2, "{rounds} guesses");
        }
    }
}
