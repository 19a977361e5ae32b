//! The wake index: streams by their wake time, folded from the headers of records, with snapshots
//! in the cluster so that opening a log does not read its history.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use convergio_domain::decider::Wake;
use convergio_domain::id::TenantId;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::api::{NoAnswerError, PublishOutcome};
use super::log_core::LogCore;
use crate::record::Position;
use crate::seal::to_hex;

/// Sort key of streams that are due now: before all times.
const NOW_KEY: i64 = i64::MIN;
/// Bytes of one piece of a snapshot.
const PIECE_BYTES: usize = 512 << 10;
/// Maximum bytes of a snapshot; a larger index is not saved.
const SNAPSHOT_BYTES: usize = 64 << 20;

/// Streams that have a wake time, by stream and by time.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct WakeTable {
    due_by_stream: HashMap<StreamKey, i64>,
    streams_by_due: BTreeSet<(i64, StreamKey)>,
}

impl WakeTable {
    /// Applies the wake of a stream's newest record.
    pub(super) fn apply(&mut self, stream: StreamKey, wake: Wake) {
        let due = match wake {
            Wake::Now => NOW_KEY,
            Wake::At(due) => due.0,
            Wake::Parked | Wake::Done => {
                if let Some(known) = self.due_by_stream.remove(&stream) {
                    self.streams_by_due.remove(&(known, stream));
                }
                return;
            }
        };
        if let Some(known) = self.due_by_stream.insert(stream.clone(), due) {
            if known == due {
                return;
            }
            self.streams_by_due.remove(&(known, stream.clone()));
        }
        self.streams_by_due.insert((due, stream));
    }

    pub(super) fn due_streams(&self, now: Timestamp, limit: usize) -> Vec<StreamKey> {
        let due = self.streams_by_due.iter().take_while(|(due, _)| *due <= now.0);
        due.take(limit).map(|(_, stream)| stream.clone()).collect()
    }

    pub(super) fn next_due_time(&self, now: Timestamp) -> Option<Timestamp> {
        let mut later = self.streams_by_due.iter().skip_while(|(due, _)| *due <= now.0);
        later.next().map(|(due, _)| Timestamp(*due))
    }

    /// Formats a snapshot: one line per stream with time, tenant and name.
    fn to_snapshot_text(&self) -> String {
        let line = |(due, stream): &(i64, StreamKey)| {
            format!("{due} {} {}\n", stream.tenant, stream.stream_name())
        };
        self.streams_by_due.iter().map(line).collect()
    }

    fn from_snapshot_text(text: &str) -> Option<Self> {
        let mut index = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let due: i64 = words.next()?.parse().ok()?;
            let tenant: TenantId = words.next()?.parse().ok()?;
            let stream = StreamKey::parse_name(tenant, words.next()?).ok()?;
            index.apply(stream, if due == NOW_KEY { Wake::Now } else { Wake::At(Timestamp(due)) });
        }
        Some(index)
    }
}

/// Describes a snapshot's pieces. Written last, so that it never names a missing piece.
#[derive(Debug, Serialize, Deserialize)]
struct SnapshotManifest {
    /// Position of the last record that the snapshot covers.
    position: Position,
    pieces: usize,
    /// BLAKE3 of all pieces, as hexadecimal digits.
    hash: String,
}

const MANIFEST_NAME: &str = "wakes";

fn piece_name(position: Position, number: usize) -> String {
    format!("wakes.{}.{number}", position.0)
}

impl LogCore {
    /// Loads the newest snapshot that is intact and not ahead of the log.
    pub(super) async fn load_wake_snapshot(&self, tail: Position) -> Option<(Position, WakeTable)> {
        match self.read_snapshot().await {
            Ok(Some((position, index))) if position <= tail => Some((position, index)),
            Ok(_) => None,
            Err(NoAnswerError(reason)) => {
                tracing::debug!(reason, "no snapshot of the wake index: it is read from the log");
                None
            }
        }
    }

    async fn read_snapshot(&self) -> Result<Option<(Position, WakeTable)>, NoAnswerError> {
        let derived = &self.names.derived;
        let Some((manifest, _)) = self.read_manifest().await? else { return Ok(None) };
        let mut text = Vec::new();
        for number in 0..manifest.pieces {
            let subject = self.names.derived_subject(&piece_name(manifest.position, number));
            // A newer snapshot may have just replaced this one.
            let Some(piece) = self.api.last_message(derived, &subject).await? else {
                return Ok(None);
            };
            text.extend_from_slice(&piece.payload);
        }
        if to_hex(blake3::hash(&text).as_bytes()) != manifest.hash {
            return Ok(None);
        }
        let index =
            String::from_utf8(text).ok().and_then(|text| WakeTable::from_snapshot_text(&text));
        Ok(index.map(|index| (manifest.position, index)))
    }

    async fn read_manifest(&self) -> Result<Option<(SnapshotManifest, u64)>, NoAnswerError> {
        let subject = self.names.derived_subject(MANIFEST_NAME);
        let Some(message) = self.api.last_message(&self.names.derived, &subject).await? else {
            return Ok(None);
        };
        let manifest = serde_json::from_slice(&message.payload);
        Ok(manifest.ok().map(|manifest| (manifest, message.sequence)))
    }

    /// Saves a snapshot, unless a rival's is as new. Losing it costs a longer start only.
    pub(super) async fn save_wakes(
        &self,
        position: Position,
        index: &WakeTable,
    ) -> Result<(), NoAnswerError> {
        let known = self.read_manifest().await?;
        if known.as_ref().is_some_and(|(manifest, _)| manifest.position >= position) {
            return Ok(());
        }
        let text = index.to_snapshot_text();
        if text.len() > SNAPSHOT_BYTES {
            return Ok(());
        }
        let pieces = text.as_bytes().chunks(PIECE_BYTES);
        let manifest = SnapshotManifest {
            position,
            pieces: pieces.len(),
            hash: to_hex(blake3::hash(text.as_bytes()).as_bytes()),
        };
        for (number, piece) in pieces.enumerate() {
            let subject = self.names.derived_subject(&piece_name(position, number));
            self.put_derived(&subject, None, Bytes::copy_from_slice(piece)).await?;
        }
        let expected = known.as_ref().map_or(0, |(_, sequence)| *sequence);
        let body =
            serde_json::to_vec(&manifest).map_err(|error| NoAnswerError(error.to_string()))?;
        self.put_derived(&self.names.derived_subject(MANIFEST_NAME), Some(expected), body.into())
            .await?;
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
    ) -> Result<(), NoAnswerError> {
        match self.api.publish_message(&self.names.derived, subject, expected, body).await {
            PublishOutcome::Stored { .. } => Ok(()),
            other => Err(NoAnswerError(format!("{other:?}"))),
        }
    }

    async fn purge_pieces(&self, position: Position) -> Result<(), NoAnswerError> {
        let subject = self.names.derived_subject(&format!("wakes.{}.*", position.0));
        let no_answer = |error: &dyn std::fmt::Display| NoAnswerError(error.to_string());
        let stream = self.api.context.get_stream_no_info(&self.names.derived).await;
        let stream = stream.map_err(|error| no_answer(&error))?;
        stream.purge().filter(subject).await.map_err(|error| no_answer(&error))?;
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

    use super::WakeTable;

    fn stream(n: u128) -> StreamKey {
        StreamKey::for_request("acme".parse().expect("a name"), uuid::Uuid::from_u128(n))
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
            let mut index = WakeTable::default();
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
            let mut due = index.due_streams(Timestamp(now), 100);
            due.sort();
            let mut expected: Vec<_> =
                last.iter().filter(|(_, wake)| is_due(wake)).map(|(n, _)| stream(*n)).collect();
            expected.sort();
            prop_assert_eq!(due, expected);
            let next = last.values().filter_map(|wake| match wake {
                Wake::At(due) if due.0 > now => Some(*due),
                _ => None,
            });
            prop_assert_eq!(index.next_due_time(Timestamp(now)), next.min());
            prop_assert_eq!(WakeTable::from_snapshot_text(&index.to_snapshot_text()), Some(index));
        }
    }

    #[test]
    fn what_is_no_snapshot_is_none() {
        for text in ["x", "1 acme", "1 acme run/x", "1 A run/x"] {
            assert_eq!(WakeTable::from_snapshot_text(text), None, "{text}");
        }
    }
}
