//! Loading streams at any event: from checkpoints, and through the histories that forks inherit.

use convergio_domain::decider::{Decider, InheritedHistory};
use convergio_domain::event::Event;
use convergio_domain::stream::{Seq, StreamKey};
use futures_util::future::BoxFuture;

use super::Checkpoint;
use crate::error::LogError;
use crate::record::Record;
use crate::repository::{LoadedStream, Repository};

/// Minimum number of events between two checkpoints.
const CHECKPOINT_INTERVAL: u64 = 1000;
/// Sequence number from which on a stream's first checkpoint is due.
pub(crate) const FIRST_CHECKPOINT_SEQ: Seq = Seq(CHECKPOINT_INTERVAL);
/// Sequence number of a fork's event from which on its first checkpoint is due.
const FORK_CHECKPOINT_SEQ: Seq = Seq(2);
/// State bytes that count as one more event between two checkpoints. Large states are written less
/// often, so that a stream's checkpoints do not outgrow its log.
const BYTES_PER_EVENT: u64 = 128;
/// Records per read: first small, then doubled up to the limit.
const FIRST_PAGE: usize = 2;
const PAGE_LIMIT: usize = 256;

impl Repository {
    /// Loads a stream as it was at an event; `None` if it has no such event. With `whole_commits`,
    /// only commits that end at or before the event are folded; otherwise every event up to it.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn load_at<D: Decider>(
        &self,
        stream: &StreamKey,
        at: Seq,
        whole_commits: bool,
    ) -> Result<Option<LoadedStream<D>>, LogError> {
        let mut loaded = self.load_checkpoint_or_new::<D>(stream, Some(at)).await?;
        // The event is usually near a checkpoint: little after it is read in vain.
        let mut page = FIRST_PAGE;
        loop {
            let after = loaded.head.map_or(Seq(0), |head| head.seq);
            let records = self.event_log().read_stream(stream, after, page).await?;
            for record in &records {
                if record.last_seq() <= at {
                    self.fold_record(&mut loaded, record).await?;
                    continue;
                }
                if !whole_commits && record.first_seq() <= at {
                    self.fold_part(&mut loaded, record, at).await?;
                }
                return Ok(Some(loaded));
            }
            let reached = loaded.head.map_or(Seq(0), |head| head.seq);
            if reached == at {
                return Ok(Some(loaded));
            }
            if records.len() < page {
                return Ok(None);
            }
            page = PAGE_LIMIT.min(page * 2);
        }
    }

    async fn fold_part<D: Decider>(
        &self,
        loaded: &mut LoadedStream<D>,
        record: &Record,
        at: Seq,
    ) -> Result<(), LogError> {
        if let (None, Some(first)) = (loaded.head, record.body.events.first()) {
            self.inherit_history(loaded, first).await?;
        }
        for recorded in record.recorded_events().take_while(|recorded| recorded.seq <= at) {
            D::fold_event(&mut loaded.state, recorded);
        }
        Ok(())
    }

    /// Loads the last checkpoint at or before an event, or an empty stream.
    pub(crate) async fn load_checkpoint_or_new<D: Decider>(
        &self,
        stream: &StreamKey,
        at: Option<Seq>,
    ) -> Result<LoadedStream<D>, LogError> {
        if let Some(found) = self.load_checkpoint(stream, at.unwrap_or(Seq(u64::MAX))).await? {
            return Ok(found);
        }
        Ok(LoadedStream::new(stream.clone()))
    }

    async fn load_checkpoint<D: Decider>(
        &self,
        stream: &StreamKey,
        at: Seq,
    ) -> Result<Option<LoadedStream<D>>, LogError> {
        let Some(checkpoints) = &self.checkpoints else { return Ok(None) };
        let Some(found) = checkpoints.last_checkpoint(stream, at) else { return Ok(None) };
        let before = Seq(found.first_seq.0.saturating_sub(1));
        let records = self.event_log().read_stream(stream, before, 1).await?;
        let record = records
            .first()
            .filter(|record| record.hash == found.hash && record.last_seq() == found.seq);
        // A checkpoint is untrusted: the record must exist and the fingerprint recomputed from the
        // state must equal the one in the hash chain.
        let state = record.and_then(|record| {
            let mut state = D::decode_snapshot(&found.state)?;
            let computed = D::refresh_fingerprint(&mut state)?;
            (record.body.fold == Some(computed)).then_some(state)
        });
        let (Some(record), Some(state)) = (record, state) else {
            tracing::warn!(%stream, seq = %found.seq, "a checkpoint is not what the log says");
            // Removed, or each load would reject it again. If removal fails, that is all that
            // happens.
            let _dropped = checkpoints.drop_all(Some(stream));
            return Ok(None);
        };
        let (stream, head) = (stream.clone(), Some(record.stream_head()));
        let due = next_checkpoint_seq(found.seq, found.state.len());
        let last_first = found.first_seq;
        Ok(Some(LoadedStream {
            head,
            last_commit_first_seq: last_first,
            next_checkpoint: due,
            state,
            ..LoadedStream::new(stream)
        }))
    }

    /// Loads the history of the parent stream that a first event names.
    pub(crate) fn inherit_history<'a, D: Decider>(
        &'a self,
        loaded: &'a mut LoadedStream<D>,
        first: &'a Event,
    ) -> BoxFuture<'a, Result<(), LogError>> {
        let inherited = D::inherited_history(first);
        // Boxed, since loading the parent may inherit in turn.
        Box::pin(async move {
            let Some(InheritedHistory { id, seq, fingerprint: fold }) = inherited else {
                return Ok(());
            };
            let parent = StreamKey { id, ..loaded.stream.clone() };
            let is_there = |found: &LoadedStream<D>| found.head.is_some_and(|head| head.seq == seq);
            // The caller of `execute_from` may have supplied the parent already.
            let at_hand = loaded.origin.take().filter(|found| found.stream == parent);
            let found = match at_hand.filter(|found| is_there(found)) {
                Some(found) => Some(*found),
                None => self.load_at::<D>(&parent, seq, true).await?.filter(is_there),
            };
            let Some(mut found) = found else {
                let reason = format!("it begins with {parent}, which has no commit up to {seq}");
                return Err(LogError::corrupt(&loaded.stream, &reason));
            };
            if D::refresh_fingerprint(&mut found.state) != Some(fold) {
                let reason = format!("{parent} had another state at event {seq}");
                return Err(LogError::corrupt(&loaded.stream, &reason));
            }
            loaded.state = found.state;
            // The fork itself is not checkpointed, so that forking stays cheap. The next commit is:
            // from then on loading the fork does not read the parent.
            loaded.next_checkpoint = FORK_CHECKPOINT_SEQ;
            Ok(())
        })
    }

    /// Writes a checkpoint if one is due.
    pub(crate) fn checkpoint_if_due<D: Decider>(&self, loaded: &mut LoadedStream<D>) {
        if loaded.head.is_some_and(|head| head.seq >= loaded.next_checkpoint) {
            self.write_checkpoint(loaded);
        }
    }

    /// Writes a checkpoint of a loaded stream; returns false if there is no store, no event, or the
    /// noun has no snapshots.
    pub fn write_checkpoint<D: Decider>(&self, loaded: &mut LoadedStream<D>) -> bool {
        let (Some(checkpoints), Some(head)) = (&self.checkpoints, loaded.head) else {
            return false;
        };
        let Some(state) = D::encode_snapshot(&loaded.state) else { return false };
        loaded.next_checkpoint = next_checkpoint_seq(head.seq, state.len());
        let (first, seq, hash) = (loaded.last_commit_first_seq, head.seq, head.hash);
        checkpoints
            .store_checkpoint(&loaded.stream, Checkpoint { first_seq: first, seq, hash, state });
        true
    }
}

/// Returns the sequence number from which on the checkpoint after one of this size is due.
fn next_checkpoint_seq(seq: Seq, bytes: usize) -> Seq {
    seq.offset_by(CHECKPOINT_INTERVAL.max(bytes as u64 / BYTES_PER_EVENT))
}
