//! The wake index: streams by their wake time, folded from the headers of records, with snapshots
//! in the cluster so that opening a log does not read its history.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use convergio_domain::decider::Wake;
use convergio_domain::id::TenantId;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::api::{NoAnswer, Published};
use super::inner::Inner;
use crate::record::Position;
use crate::seal::hex;

/// Sort key of streams that are due now: before all times.
const NOW: i64 = i64::MIN;
/// Bytes of one piece of a snapshot.
const PIECE: usize = 512 << 10;
/// Maximum bytes of a snapshot; a larger index is not saved.
const SNAPSHOT_BYTES: usize = 64 << 20;

/// Streams that have a wake time, by stream and by time.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct WakeIndex {
    of: HashMap<StreamKey, i64>,
    due: BTreeSet<(i64, StreamKey)>,
}

impl WakeIndex {
    /// Applies the wake of a stream's newest record.
    pub(super) fn apply(&mut self, stream: StreamKey, wake: Wake) {
        let due = match wake {
            Wake::Now => NOW,
            Wake::At(due) => due.0,
            Wake::Parked | Wake::Done => {
                if let Some(known) = self.of.remove(&stream) {
                    self.due.remove(&(known, stream));
                }
                return;
            }
        };
        if let Some(known) = self.of.insert(stream.clone(), due) {
            if known == due {
                return;
            }
            self.due.remove(&(known, stream.clone()));
        }
        self.due.insert((due, stream));
    }

    pub(super) fn due(&self, now: Timestamp, limit: usize) -> Vec<StreamKey> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now.0);
        due.take(limit).map(|(_, stream)| stream.clone()).collect()
    }

    pub(super) fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let mut later = self.due.iter().skip_while(|(due, _)| *due <= now.0);
        later.next().map(|(due, _)| Timestamp(*due))
    }

    /// Formats a snapshot: one line per stream with time, tenant and name.
    fn write(&self) -> String {
        let line = |(due, stream): &(i64, StreamKey)| {
            format!("{due} {} {}\n", stream.tenant, stream.name())
        };
        self.due.iter().map(line).collect()
    }

    fn read(text: &str) -> Option<Self> {
        let mut index = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let due: i64 = words.next()?.parse().ok()?;
            let tenant: TenantId = words.next()?.parse().ok()?;
            let stream = StreamKey::parse(tenant, words.next()?).ok()?;
            index.apply(stream, if due == NOW { Wake::Now } else { Wake::At(Timestamp(due)) });
        }
        Some(index)
    }
}

/// Describes a snapshot's pieces. Written last, so that it never names a missing piece.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    /// Position of the last record that the snapshot covers.
    position: Position,
    pieces: usize,
    /// BLAKE3 of all pieces, as hexadecimal digits.
    hash: String,
}

const MANIFEST: &str = "wakes";

fn piece_name(position: Position, number: usize) -> String {
    format!("wakes.{}.{number}", position.0)
}

impl Inner {
    /// Loads the newest snapshot that is intact and not ahead of the log.
    pub(super) async fn wake_snapshot(&self, tail: Position) -> Option<(Position, WakeIndex)> {
        match self.read_snapshot().await {
            Ok(Some((position, index))) if position <= tail => Some((position, index)),
            Ok(_) => None,
            Err(NoAnswer(reason)) => {
                tracing::debug!(reason, "no snapshot of the wake index: it is read from the log");
                None
            }
        }
    }

    async fn read_snapshot(&self) -> Result<Option<(Position, WakeIndex)>, NoAnswer> {
        let derived = &self.names.derived;
        let Some((manifest, _)) = self.manifest().await? else { return Ok(None) };
        let mut text = Vec::new();
        for number in 0..manifest.pieces {
            let subject = self.names.derived(&piece_name(manifest.position, number));
            // A newer snapshot may have just replaced this one.
            let Some(piece) = self.api.last(derived, &subject).await? else { return Ok(None) };
            text.extend_from_slice(&piece.payload);
        }
        if hex(blake3::hash(&text).as_bytes()) != manifest.hash {
            return Ok(None);
        }
        let index = String::from_utf8(text).ok().and_then(|text| WakeIndex::read(&text));
        Ok(index.map(|index| (manifest.position, index)))
    }

    async fn manifest(&self) -> Result<Option<(Manifest, u64)>, NoAnswer> {
        let subject = self.names.derived(MANIFEST);
        let Some(message) = self.api.last(&self.names.derived, &subject).await? else {
            return Ok(None);
        };
        let manifest = serde_json::from_slice(&message.payload);
        Ok(manifest.ok().map(|manifest| (manifest, message.sequence)))
    }

    /// Saves a snapshot, unless a rival's is as new. Losing it costs a longer start only.
    pub(super) async fn save_wakes(
        &self,
        position: Position,
        index: &WakeIndex,
    ) -> Result<(), NoAnswer> {
        let known = self.manifest().await?;
        if known.as_ref().is_some_and(|(manifest, _)| manifest.position >= position) {
            return Ok(());
        }
        let text = index.write();
        if text.len() > SNAPSHOT_BYTES {
            return Ok(());
        }
        let pieces = text.as_bytes().chunks(PIECE);
        let manifest = Manifest {
            position,
            pieces: pieces.len(),
            hash: hex(blake3::hash(text.as_bytes()).as_bytes()),
        };
        for (number, piece) in pieces.enumerate() {
            let subject = self.names.derived(&piece_name(position, number));
            self.put_derived(&subject, None, Bytes::copy_from_slice(piece)).await?;
        }
        let expected = known.as_ref().map_or(0, |(_, sequence)| *sequence);
        let body = serde_json::to_vec(&manifest).map_err(|error| NoAnswer(error.to_string()))?;
        self.put_derived(&self.names.derived(MANIFEST), Some(expected), body.into()).await?;
        if let Some((old, _)) = known {
            self.purge_pieces(old.position).await?;
        }
        Ok(())
    }

    async fn put_derived(
        &self,
        subject: &str,
        expected: Option<u64>,
        body: Bytes,
    ) -> Result<(), NoAnswer> {
        match self.api.publish(&self.names.derived, subject, expected, body).await {
            Published::Stored { .. } => Ok(()),
            other => Err(NoAnswer(format!("{other:?}"))),
        }
    }

    async fn purge_pieces(&self, position: Position) -> Result<(), NoAnswer> {
        let subject = self.names.derived(&format!("wakes.{}.*", position.0));
        let told = |error: &dyn std::fmt::Display| NoAnswer(error.to_string());
        let stream = self.api.context.get_stream_no_info(&self.names.derived).await;
        let stream = stream.map_err(|error| told(&error))?;
        stream.purge().filter(subject).await.map_err(|error| told(&error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use convergio_domain::decider::Wake;
    use convergio_domain::stream::StreamKey;
    use convergio_domain::time::Timestamp;
    use proptest::prelude::{Just, Strategy, prop};
    use proptest::{prop_assert_eq, prop_oneof, proptest};

    use super::WakeIndex;

    fn stream(n: u128) -> StreamKey {
        StreamKey::request("acme".parse().expect("a name"), uuid::Uuid::from_u128(n))
    }

    fn wake() -> impl Strategy<Value = Wake> {
        prop_oneof![
            Just(Wake::Now),
            (0..20_i64).prop_map(|due| Wake::At(Timestamp(due))),
            Just(Wake::Parked),
            Just(Wake::Done),
        ]
    }

    proptest! {
        #[test]
        fn the_index_is_what_the_last_wakes_say(
            wakes in prop::collection::vec((0..5_u128, wake()), 0..60),
            now in 0..20_i64,
        ) {
            let mut index = WakeIndex::default();
            let mut last = HashMap::new();
            for (n, wake) in wakes {
                index.apply(stream(n), wake);
                last.insert(n, wake);
            }
            let is_due = |wake: &Wake| match wake {
                Wake::Now => true,
                Wake::At(due) => due.0 <= now,
                _ => false,
            };
            let mut due = index.due(Timestamp(now), 100);
            due.sort();
            let mut expected: Vec<_> =
                last.iter().filter(|(_, wake)| is_due(wake)).map(|(n, _)| stream(*n)).collect();
            expected.sort();
            prop_assert_eq!(due, expected);
            let next = last.values().filter_map(|wake| match wake {
                Wake::At(due) if due.0 > now => Some(*due),
                _ => None,
            });
            prop_assert_eq!(index.next_due(Timestamp(now)), next.min());
            prop_assert_eq!(WakeIndex::read(&index.write()), Some(index));
        }
    }

    #[test]
    fn what_is_no_snapshot_is_none() {
        for text in ["x", "1 acme", "1 acme run/x", "1 A run/x"] {
            assert_eq!(WakeIndex::read(text), None, "{text}");
        }
    }
}
