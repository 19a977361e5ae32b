//! Recall of memories: one index for each tenant and subject, folded from the log.
//!
//! An index is a database in memory: no text of a user is written to a file here. It is brought up
//! to date whenever it is queried, and folded again from the start after it was evicted or the
//! process restarted; the log is its only source. `subject_index` holds one index, `functions` the
//! kernel's SQL functions that rank it; this file keeps the indexes and folds records into them.

mod functions;
mod subject_index;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use convergio_domain::event::Event;
use convergio_domain::id::TenantId;
use convergio_domain::memory::event::MemoryEvent;
use convergio_domain::memory::{self, MemoryId, RecalledMemory, Subject};
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{EventLog, LogError, Record};

use subject_index::{IndexedMemory, SubjectIndex};

/// Records read from the log at once.
const READ_LIMIT: usize = 256;
/// Maximum indexes kept; the least recently used one is evicted.
const INDEXES_LIMIT: usize = 256;
/// Maximum memories in one answer.
pub const ITEMS_LIMIT: usize = 1000;

/// Error of listing or recalling memories.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The index's database refused a statement.
    #[error("the index of a memory: {0}")]
    Index(#[from] rusqlite::Error),
    /// The kernel refused a value, such as a vector of the wrong length.
    #[error("the index of a memory: {0}")]
    Kernel(#[from] convergio_kernel_c::KernelError),
}

/// A subject's index and the sequence number up to which it is folded.
struct FoldedIndex {
    index: SubjectIndex,
    seq: Seq,
    /// Payloads that hold the memories' texts.
    texts: HashMap<MemoryId, PayloadRef>,
}

/// One subject's index behind a lock of its own, so that subjects do not wait for each other.
struct IndexSlot {
    folded_index: Arc<tokio::sync::Mutex<Option<FoldedIndex>>>,
    last_used: u64,
}

/// The indexes in memory. `clock` counts uses, and orders the slots for eviction.
#[derive(Default)]
struct IndexSlots {
    slots: HashMap<StreamKey, IndexSlot>,
    clock: u64,
}

/// All memories of a log, indexed on demand.
pub struct MemoryIndexes {
    log: Arc<dyn EventLog>,
    slots: Mutex<IndexSlots>,
}

impl MemoryIndexes {
    /// Creates indexes over a log; none is folded before it is queried.
    pub fn new(log: Arc<dyn EventLog>) -> Self {
        Self { log, slots: Mutex::default() }
    }

    /// Lists a subject's memories, the newest first, at most `limit`.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn list_memories(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        limit: usize,
    ) -> Result<Vec<RecalledMemory>, MemoryError> {
        let limit = limit.min(ITEMS_LIMIT);
        self.query_index(tenant, subject, |index| index.newest_memories(limit)).await
    }

    /// Recalls the memories that fit a question best, best first, together at most `budget_tokens`.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn recall_memories(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        question: &str,
        now: Timestamp,
        budget_tokens: u32,
    ) -> Result<Vec<RecalledMemory>, MemoryError> {
        let query = |index: &SubjectIndex| index.best_matches(question, now, ITEMS_LIMIT);
        let ranked = self.query_index(tenant, subject, query).await?;
        Ok(subject_index::pack_memories(ranked, budget_tokens))
    }

    /// Returns whether a subject has this memory.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn has_memory(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        memory: MemoryId,
    ) -> Result<bool, MemoryError> {
        let slot = self.slot_for_subject(&memory::memory_stream(tenant, subject));
        // The lock is held while the index is folded: two recalls of a subject would fold it twice.
        let mut folded = slot.lock().await;
        let folded =
            self.catch_up_index(&mut folded, &memory::memory_stream(tenant, subject)).await?;
        Ok(folded.texts.contains_key(&memory))
    }

    /// Brings the index up to date and queries it. A text that was erased without an event in the
    /// stream is removed from the index when it would be returned.
    async fn query_index(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        query: impl Fn(&SubjectIndex) -> Result<Vec<RecalledMemory>, MemoryError>,
    ) -> Result<Vec<RecalledMemory>, MemoryError> {
        let stream = memory::memory_stream(tenant, subject);
        let slot = self.slot_for_subject(&stream);
        let mut folded = slot.lock().await;
        let folded = self.catch_up_index(&mut folded, &stream).await?;
        // Each round removes what was found erased, and asks again to fill the places.
        loop {
            let items = query(&folded.index)?;
            let mut erased = Vec::new();
            for item in &items {
                let Some(place) = folded.texts.get(&item.id) else { continue };
                if self.log.read_payload(&stream, *place).await?.is_none() {
                    erased.push(item.id);
                }
            }
            if erased.is_empty() {
                return Ok(items);
            }
            for memory in erased {
                folded.index.delete_memory(memory)?;
                folded.texts.remove(&memory);
            }
        }
    }

    /// The slot of a subject, made if there is none; evicts the least recently used one at the
    /// limit. A query that still holds an evicted index finishes on it.
    fn slot_for_subject(&self, stream: &StreamKey) -> Arc<tokio::sync::Mutex<Option<FoldedIndex>>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.clock += 1;
        let used = slots.clock;
        // The map is small: a scan for the oldest costs less than a list to maintain.
        if slots.slots.len() >= INDEXES_LIMIT && !slots.slots.contains_key(stream) {
            let oldest = slots.slots.iter().min_by_key(|(_, slot)| slot.last_used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                slots.slots.remove(&oldest);
            }
        }
        let new_slot = || IndexSlot { folded_index: Arc::default(), last_used: used };
        let slot = slots.slots.entry(stream.clone()).or_insert_with(new_slot);
        slot.last_used = used;
        Arc::clone(&slot.folded_index)
    }

    /// Reads the stream from where the index was left and applies it.
    async fn catch_up_index<'a>(
        &self,
        folded: &'a mut Option<FoldedIndex>,
        stream: &StreamKey,
    ) -> Result<&'a mut FoldedIndex, MemoryError> {
        if folded.is_none() {
            let (seq, texts) = (Seq(0), HashMap::new());
            *folded = Some(FoldedIndex { index: SubjectIndex::new()?, seq, texts });
        }
        let Some(folded_index) = folded else { unreachable!("it was made just now") };
        loop {
            let records = self.log.read_stream(stream, folded_index.seq, READ_LIMIT).await?;
            for record in &records {
                self.apply_record(folded_index, stream, record).await?;
            }
            if records.len() < READ_LIMIT {
                return Ok(folded_index);
            }
        }
    }

    async fn apply_record(
        &self,
        folded: &mut FoldedIndex,
        stream: &StreamKey,
        record: &Record,
    ) -> Result<(), MemoryError> {
        for recorded in record.recorded_events() {
            let Event::Memory(event) = recorded.event else { continue };
            match event {
                MemoryEvent::MemoryStored(stored) => {
                    // An erased payload has no text any more: nothing to index.
                    let Some(text) = self.log.read_payload(stream, stored.text).await? else {
                        continue;
                    };
                    folded.index.insert_memory(&IndexedMemory {
                        id: stored.memory,
                        text: &String::from_utf8_lossy(&text),
                        tokens: stored.tokens,
                        importance: stored.importance,
                        stored_at: recorded.time,
                    })?;
                    folded.texts.insert(stored.memory, stored.text);
                }
                MemoryEvent::MemoryForgotten(forgotten) => {
                    folded.index.delete_memory(forgotten.memory)?;
                    folded.texts.remove(&forgotten.memory);
                }
            }
        }
        folded.seq = record.last_seq();
        Ok(())
    }
}
