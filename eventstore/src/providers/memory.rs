//! [`MemoryLog`]: the log in memory, for tests and for inspecting files. Nothing survives the
//! process. It is the model that other providers are compared with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::decider::Wake;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use futures_util::stream::BoxStream;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::clock::{SystemClock, WallClock};
use crate::commit::Commit;
use crate::dedup::PayloadAssembly;
use crate::error::{AppendError, LogError};
use crate::log::{
    ArchivedRecord, Durability, EventLog, LogReader, LogWriter, PayloadReader, RawScan, RecordPage,
    WakeIndex,
};
use crate::prepare::{PreparedCommit, prepare_commit};
use crate::record::{PayloadMeta, Position, RawRecord, Record, StreamHead};
use crate::seal::{MasterKey, Opening, PayloadKeys, open_part};
use crate::signature::ExportSigner;
use crate::stream_tail::{StreamFeeds, follow_stream};
use crate::tail::{self, BACKLOG};

/// A log whose records live as long as the process. Clones share one log.
#[derive(Clone)]
pub struct MemoryLog {
    shared: Arc<MemoryLogCore>,
}

/// State that all clones share.
struct MemoryLogCore {
    keys: MasterKey,
    state: Mutex<MemoryLogState>,
    live: broadcast::Sender<Arc<Record>>,
    feeds: Arc<StreamFeeds>,
}

#[derive(Default)]
struct MemoryLogState {
    records: Vec<Arc<Record>>,
    /// Indices into `records`, by stream.
    streams: BTreeMap<StreamKey, Vec<usize>>,
    commits: BTreeMap<(StreamKey, Uuid), usize>,
    sealed: BTreeMap<(StreamKey, PayloadRef), Vec<u8>>,
    wakes: BTreeMap<StreamKey, Wake>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// Creates an empty log with a fixed payload key.
    pub fn new() -> Self {
        Self::sealed_with([7; 32])
    }

    /// Creates an empty log that seals payloads with this key.
    pub fn sealed_with(payload_key: [u8; 32]) -> Self {
        let (live, _) = broadcast::channel(BACKLOG);
        let keys = MasterKey::new(payload_key);
        let feeds = Arc::default();
        Self { shared: Arc::new(MemoryLogCore { keys, state: Mutex::default(), live, feeds }) }
    }
}

impl MemoryLogCore {
    fn lock_state(&self) -> MutexGuard<'_, MemoryLogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_commit(&self, prepared: PreparedCommit) -> Result<StreamHead, AppendError> {
        let mut state = self.lock_state();
        let before = state.records.len();
        let record = state.append_commit(prepared)?;
        if state.records.len() > before {
            // An error means that there are no followers.
            let _followers = self.live.send(Arc::clone(&record));
            self.feeds.publish_record(&record);
        }
        Ok(record.stream_head())
    }

    fn read_page(&self, after: Position, limit: usize) -> RecordPage {
        let state = self.lock_state();
        let from = usize::try_from(after.0).unwrap_or(usize::MAX).min(state.records.len());
        let records: Vec<_> = state.records[from..].iter().take(limit).cloned().collect();
        let next = records.last().map_or(after, |record| record.position);
        RecordPage { records, next, tail: Position(state.records.len() as u64) }
    }
}

impl MemoryLogCore {
    fn read_records(&self, stream: &StreamKey, after: Seq, limit: usize) -> Vec<Arc<Record>> {
        let state = self.lock_state();
        let Some(indices) = state.streams.get(stream) else { return Vec::new() };
        let from = indices.partition_point(|index| state.records[*index].first_seq() <= after);
        let found = indices[from..].iter().take(limit);
        found.map(|index| Arc::clone(&state.records[*index])).collect()
    }
}

/// Converts a record to its raw form.
fn to_raw_record(record: &Record) -> Result<RawRecord, LogError> {
    let body = record.body.to_canonical_json();
    let body = body.map_err(|error| LogError::corrupt(&record.stream, &error))?;
    Ok(RawRecord {
        position: record.position,
        stream: record.stream.clone(),
        seq: record.first_seq(),
        prev_hash: record.prev_hash,
        hash: record.hash,
        body: Bytes::from(body),
    })
}

impl MemoryLogState {
    fn stream_head(&self, stream: &StreamKey) -> Option<StreamHead> {
        let last = self.streams.get(stream)?.last()?;
        Some(self.records[*last].stream_head())
    }

    /// Returns a payload as it is stored; `None` if it was erased, which leaves empty bytes.
    fn stored_payload(
        &self,
        stream: &StreamKey,
        place: PayloadRef,
    ) -> Result<Option<(&PayloadMeta, &[u8])>, LogError> {
        let indices = self.streams.get(stream).into_iter().flatten();
        let mut records = indices.map(|index| &self.records[*index]);
        let record = records.find(|record| record.first_seq() == place.seq);
        let meta = record.and_then(|r| r.body.payloads.get(usize::from(place.index)));
        let Some(meta) = meta else { return Ok(None) };
        match self.sealed.get(&(stream.clone(), place)) {
            None => Err(LogError::missing_payload(stream, place)),
            Some(sealed) if sealed.is_empty() => Ok(None),
            Some(sealed) => Ok(Some((meta, sealed))),
        }
    }

    fn append_commit(&mut self, prepared: PreparedCommit) -> Result<Arc<Record>, AppendError> {
        let key = (prepared.stream.clone(), prepared.commit);
        if let Some(index) = self.commits.get(&key) {
            let known = &self.records[*index];
            let same = prepared.is_same_commit(&known.body);
            return if same { Ok(Arc::clone(known)) } else { Err(AppendError::CommitMismatch) };
        }
        let actual = self.stream_head(&prepared.stream);
        if actual != prepared.expected {
            return Err(AppendError::Conflict { actual });
        }
        let index = self.records.len();
        // Empty bytes mark a payload that was erased before it was archived.
        for (slot, sealed) in (0_u16..).zip(prepared.sealed) {
            let reference = PayloadRef { seq: prepared.body.seq, index: slot };
            self.sealed.insert((prepared.stream.clone(), reference), sealed);
        }
        let record = Arc::new(Record {
            position: Position(index as u64 + 1),
            recorded_at: SystemClock.now(),
            stream: prepared.stream.clone(),
            prev_hash: prepared.prev_hash,
            hash: prepared.hash,
            body: prepared.body,
        });
        self.records.push(Arc::clone(&record));
        self.streams.entry(prepared.stream.clone()).or_default().push(index);
        self.commits.insert(key, index);
        match prepared.wake {
            Wake::Now | Wake::At(_) => self.wakes.insert(prepared.stream, prepared.wake),
            Wake::Parked | Wake::Done => self.wakes.remove(&prepared.stream),
        };
        Ok(record)
    }
}

#[async_trait]
impl LogReader for MemoryLog {
    async fn stream_head(&self, stream: &StreamKey) -> Result<Option<StreamHead>, LogError> {
        Ok(self.shared.lock_state().stream_head(stream))
    }

    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        Ok(self.shared.read_records(stream, after, limit))
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<RecordPage, LogError> {
        Ok(self.shared.read_page(after, limit))
    }

    async fn read_raw(&self, scan: RawScan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError> {
        let records = match scan {
            RawScan::All(after) => self.shared.read_page(after, limit).records,
            RawScan::Stream(stream, after) => self.shared.read_records(stream, after, limit),
        };
        records.iter().map(|record| to_raw_record(record)).collect()
    }

    fn tail_all(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let (live, shared) = (self.shared.live.subscribe(), Arc::clone(&self.shared));
        let read = Arc::new(move |after, limit| {
            let page = shared.read_page(after, limit);
            Box::pin(async move { Ok(page) }) as _
        });
        tail::follow_log(read, live, after)
    }

    fn tail_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let feed = self.shared.feeds.subscribe_stream(stream);
        // A weak reference, so that a follower does not keep the log alive but ends with it.
        let (shared, stream) = (Arc::downgrade(&self.shared), stream.clone());
        let read = Box::new(move |after, limit| {
            let shared = shared.upgrade();
            let found = shared.map(|shared| shared.read_records(&stream, after, limit));
            Box::pin(async move { found.ok_or(LogError::Closed) }) as _
        });
        follow_stream(read, feed, after)
    }
}

#[async_trait]
impl PayloadReader for MemoryLog {
    async fn open_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        let key = self.shared.keys.tenant_key(&stream.tenant)?;
        let state = self.shared.lock_state();
        let mut assembly = PayloadAssembly::new(reference);
        while let Some(wanted) = assembly.next_wanted() {
            let Some((meta, sealed)) = state.stored_payload(stream, wanted)? else {
                return Ok(None);
            };
            let own = open_part(&key, stream, wanted, sealed, &meta.commitment, meta.bytes)?;
            assembly.add_stored(meta.clone(), own)?;
        }
        assembly.into_opening(&key, stream).map(Some)
    }
}

#[async_trait]
impl WakeIndex for MemoryLog {
    async fn due_streams(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        let state = self.shared.lock_state();
        let is_due = |wake: &Wake| match wake {
            Wake::Now => true,
            Wake::At(due) => *due <= now,
            Wake::Parked | Wake::Done => false,
        };
        let due = state.wakes.iter().filter(|(_, wake)| is_due(wake));
        Ok(due.map(|(stream, _)| stream.clone()).take(limit).collect())
    }

    async fn next_due_time(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        let state = self.shared.lock_state();
        let times = state.wakes.values().filter_map(|wake| match wake {
            Wake::At(due) if *due > now => Some(*due),
            _ => None,
        });
        Ok(times.min())
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn durability(&self) -> Durability {
        Durability::Process
    }

    fn export_signer(&self) -> Option<ExportSigner> {
        Some(ExportSigner::from_master_key(&self.shared.keys))
    }

    async fn close(&self) -> Result<(), LogError> {
        Ok(())
    }
}

#[async_trait]
impl LogWriter for MemoryLog {
    async fn append(&self, commit: Commit) -> Result<StreamHead, AppendError> {
        self.shared.append_commit(prepare_commit(commit, &self.shared.keys)?)
    }

    async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError> {
        let mut state = self.shared.lock_state();
        let sealed = state.sealed.get_mut(&(stream.clone(), reference));
        Ok(sealed.is_some_and(|sealed| !std::mem::take(sealed).is_empty()))
    }

    async fn restore_record(&self, archived: ArchivedRecord) -> Result<StreamHead, AppendError> {
        self.shared.append_commit(archived.into_prepared())
    }
}
