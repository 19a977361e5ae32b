//! Streams at any of their events: from checkpoints, through the histories that they inherit.

use convergio_domain::decider::{Decider, Inherited};
use convergio_domain::event::Event;
use convergio_domain::stream::{Seq, StreamKey};
use futures_util::future::BoxFuture;

use super::Checkpoint;
use crate::error::LogError;
use crate::record::Record;
use crate::repository::{Loaded, Repository};

/// Events between two checkpoints at least.
const EVERY: u64 = 1000;
/// The event at which a stream's first checkpoint is due.
pub(crate) const FIRST: Seq = Seq(EVERY);
/// The event of a fork from which on its first checkpoint is due.
const AFTER_FORKING: Seq = Seq(2);
/// Bytes of a state that count as one event more between two checkpoints: those of large states lie
/// further apart, so that all of a stream are not larger than its log.
const BYTES_AN_EVENT: u64 = 128;
/// Records read at once, at first and at most.
const FIRST_PAGE: usize = 2;
const PAGE: usize = 256;

impl Repository {
    /// A stream as it was at an event; `None` if it has no such event. With `whole`, the commits
    /// that end at or before the event are folded, else every event up to it.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn load_at<D: Decider>(
        &self,
        stream: &StreamKey,
        at: Seq,
        whole: bool,
    ) -> Result<Option<Loaded<D>>, LogError> {
        let mut loaded = self.begin::<D>(stream, Some(at)).await?;
        // The event is near a checkpoint: what comes after it is not read.
        let mut page = FIRST_PAGE;
        loop {
            let after = loaded.head.map_or(Seq(0), |head| head.seq);
            let records = self.log().read_stream(stream, after, page).await?;
            for record in &records {
                if record.last_seq() <= at {
                    self.fold(&mut loaded, record).await?;
                    continue;
                }
                if !whole && record.first_seq() <= at {
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
            page = PAGE.min(page * 2);
        }
    }

    async fn fold_part<D: Decider>(
        &self,
        loaded: &mut Loaded<D>,
        record: &Record,
        at: Seq,
    ) -> Result<(), LogError> {
        if let (None, Some(first)) = (loaded.head, record.body.events.first()) {
            self.inherit(loaded, first).await?;
        }
        for recorded in record.events().take_while(|recorded| recorded.seq <= at) {
            D::evolve(&mut loaded.state, recorded);
        }
        Ok(())
    }

    /// What a stream begins with when it is folded: its last checkpoint, or nothing.
    pub(crate) async fn begin<D: Decider>(
        &self,
        stream: &StreamKey,
        at: Option<Seq>,
    ) -> Result<Loaded<D>, LogError> {
        if let Some(found) = self.recall(stream, at.unwrap_or(Seq(u64::MAX))).await? {
            return Ok(found);
        }
        Ok(Loaded::new(stream.clone()))
    }

    async fn recall<D: Decider>(
        &self,
        stream: &StreamKey,
        at: Seq,
    ) -> Result<Option<Loaded<D>>, LogError> {
        let Some(checkpoints) = &self.checkpoints else { return Ok(None) };
        let Some(found) = checkpoints.last(stream, at) else { return Ok(None) };
        let before = Seq(found.first.0.saturating_sub(1));
        let records = self.log().read_stream(stream, before, 1).await?;
        let record = records
            .first()
            .filter(|record| record.hash == found.hash && record.last_seq() == found.seq);
        let state = record.and_then(|record| {
            let mut state = D::recall(&found.state)?;
            let computed = D::fingerprint(&mut state)?;
            (record.body.fold == Some(computed)).then_some(state)
        });
        let (Some(record), Some(state)) = (record, state) else {
            tracing::warn!(%stream, seq = %found.seq, "a checkpoint is not what the log says");
            // It would be found again and again; if it stays, the same happens again.
            let _dropped = checkpoints.drop_all(Some(stream));
            return Ok(None);
        };
        let (stream, head) = (stream.clone(), Some(record.head()));
        let due = next_due(found.seq, found.state.len());
        let last_first = found.first;
        Ok(Some(Loaded { head, last_first, due, state, ..Loaded::new(stream) }))
    }

    /// Takes in the part of another stream that a first event names.
    pub(crate) fn inherit<'a, D: Decider>(
        &'a self,
        loaded: &'a mut Loaded<D>,
        first: &'a Event,
    ) -> BoxFuture<'a, Result<(), LogError>> {
        let inherited = D::inherits(first);
        Box::pin(async move {
            let Some(Inherited { id, seq, fold }) = inherited else { return Ok(()) };
            let parent = StreamKey { id, ..loaded.stream.clone() };
            let is_there = |found: &Loaded<D>| found.head.is_some_and(|head| head.seq == seq);
            let at_hand = loaded.origin.take().filter(|found| found.stream == parent);
            let found = match at_hand.filter(|found| is_there(found)) {
                Some(found) => Some(*found),
                None => self.load_at::<D>(&parent, seq, true).await?.filter(is_there),
            };
            let Some(mut found) = found else {
                let reason = format!("it begins with {parent}, which has no commit up to {seq}");
                return Err(LogError::corrupt(&loaded.stream, &reason));
            };
            if D::fingerprint(&mut found.state) != Some(fold) {
                let reason = format!("{parent} had another state at event {seq}");
                return Err(LogError::corrupt(&loaded.stream, &reason));
            }
            loaded.state = found.state;
            // Forking writes no state. The first checkpoint comes with the next commit: from then
            // on who reads the fork need not read the parent.
            loaded.due = AFTER_FORKING;
            Ok(())
        })
    }

    /// Keeps a checkpoint if the last one is far behind.
    pub(crate) fn keep_if_far<D: Decider>(&self, loaded: &mut Loaded<D>) {
        if loaded.head.is_some_and(|head| head.seq >= loaded.due) {
            self.keep(loaded);
        }
    }

    /// Keeps a checkpoint of a stream as it was loaded; tells whether there is one now.
    pub fn keep<D: Decider>(&self, loaded: &mut Loaded<D>) -> bool {
        let (Some(checkpoints), Some(head)) = (&self.checkpoints, loaded.head) else {
            return false;
        };
        let Some(state) = D::snapshot(&loaded.state) else { return false };
        loaded.due = next_due(head.seq, state.len());
        let (first, seq, hash) = (loaded.last_first, head.seq, head.hash);
        checkpoints.keep(&loaded.stream, Checkpoint { first, seq, hash, state });
        true
    }
}

/// From which event on the checkpoint after one of this size is due.
fn next_due(seq: Seq, bytes: usize) -> Seq {
    seq.plus(EVERY.max(bytes as u64 / BYTES_AN_EVENT))
}
