//! The log in memory: for tests and for looking at things. Nothing survives the process.

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

use crate::clock::{Clock, SystemClock};
use crate::commit::Commit;
use crate::error::{AppendError, LogError};
use crate::log::{Archived, Durability, EventLog, Page};
use crate::prepare::{Prepared, prepare};
use crate::record::{Head, PayloadMeta, Position, Record};
use crate::reuse::Assembly;
use crate::seal::{MasterKey, PayloadKeys, open};
use crate::tail::{self, BACKLOG};

/// A log whose records live as long as the process.
#[derive(Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

struct Shared {
    keys: MasterKey,
    state: Mutex<State>,
    live: broadcast::Sender<Arc<Record>>,
}

#[derive(Default)]
struct State {
    records: Vec<Arc<Record>>,
    /// Indices of each stream's records.
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
    /// An empty log.
    pub fn new() -> Self {
        let (live, _) = broadcast::channel(BACKLOG);
        let keys = MasterKey([7; 32]);
        Self { shared: Arc::new(Shared { keys, state: Mutex::default(), live }) }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, after: Position, limit: usize) -> Page {
        let state = self.state();
        let from = usize::try_from(after.0).unwrap_or(usize::MAX).min(state.records.len());
        let records: Vec<_> = state.records[from..].iter().take(limit).cloned().collect();
        let next = records.last().map_or(after, |record| record.position);
        Page { records, next, tail: Position(state.records.len() as u64) }
    }
}

impl State {
    fn head(&self, stream: &StreamKey) -> Option<Head> {
        let last = self.streams.get(stream)?.last()?;
        Some(self.records[*last].head())
    }

    /// A payload as it is stored.
    fn stored(&self, stream: &StreamKey, place: PayloadRef) -> Option<(&PayloadMeta, &[u8])> {
        let sealed = self.sealed.get(&(stream.clone(), place))?;
        let mut records = self.streams.get(stream)?.iter().map(|index| &self.records[*index]);
        let record = records.find(|record| record.first_seq() == place.seq)?;
        Some((record.body.payloads.get(usize::from(place.index))?, sealed))
    }

    fn append(&mut self, prepared: Prepared) -> Result<Arc<Record>, AppendError> {
        let key = (prepared.stream.clone(), prepared.commit);
        if let Some(index) = self.commits.get(&key) {
            let known = &self.records[*index];
            let same = prepared.is_same(&known.body);
            return if same { Ok(Arc::clone(known)) } else { Err(AppendError::CommitMismatch) };
        }
        let actual = self.head(&prepared.stream);
        if actual != prepared.expected {
            return Err(AppendError::Conflict { actual });
        }
        let index = self.records.len();
        let sealed = (0_u16..).zip(prepared.sealed);
        for (slot, sealed) in sealed.filter(|(_, sealed)| !sealed.is_empty()) {
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
impl EventLog for MemoryLog {
    fn durability(&self) -> Durability {
        Durability::Process
    }

    async fn append(&self, commit: Commit) -> Result<Head, AppendError> {
        self.restore(Archived(prepare(commit, &self.shared.keys)?)).await
    }

    async fn restore(&self, Archived(prepared): Archived) -> Result<Head, AppendError> {
        let mut state = self.shared.state();
        let before = state.records.len();
        let record = state.append(prepared)?;
        if state.records.len() > before {
            // Nobody following is fine.
            let _followers = self.shared.live.send(Arc::clone(&record));
        }
        Ok(record.head())
    }

    async fn head(&self, stream: &StreamKey) -> Result<Option<Head>, LogError> {
        Ok(self.shared.state().head(stream))
    }

    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        let state = self.shared.state();
        let indices = state.streams.get(stream).into_iter().flatten();
        let records = indices.map(|index| &state.records[*index]);
        Ok(records.filter(|record| record.first_seq() > after).take(limit).cloned().collect())
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Page, LogError> {
        Ok(self.shared.page(after, limit))
    }

    fn tail(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let (live, shared) = (self.shared.live.subscribe(), Arc::clone(&self.shared));
        let read = Arc::new(move |after, limit| {
            let page = shared.page(after, limit);
            Box::pin(async move { Ok(page) }) as _
        });
        tail::follow(read, live, after)
    }

    async fn payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Bytes>, LogError> {
        let key = self.shared.keys.key(&stream.tenant)?;
        let state = self.shared.state();
        let mut assembly = Assembly::new(reference);
        while let Some(wanted) = assembly.wants() {
            let Some((meta, sealed)) = state.stored(stream, wanted) else { return Ok(None) };
            let own = open(&key, stream, wanted, sealed, &meta.commitment, meta.bytes)?;
            assembly.add(meta.clone(), own)?;
        }
        assembly.finish(&key, stream).map(Some)
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        let state = self.shared.state();
        let is_due = |wake: &Wake| match wake {
            Wake::Now => true,
            Wake::At(due) => *due <= now,
            Wake::Parked | Wake::Done => false,
        };
        let due = state.wakes.iter().filter(|(_, wake)| is_due(wake));
        Ok(due.map(|(stream, _)| stream.clone()).take(limit).collect())
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        let state = self.shared.state();
        let times = state.wakes.values().filter_map(|wake| match wake {
            Wake::At(due) if *due > now => Some(*due),
            _ => None,
        });
        Ok(times.min())
    }

    async fn close(&self) -> Result<(), LogError> {
        Ok(())
    }
}
