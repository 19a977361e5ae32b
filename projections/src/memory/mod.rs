//! What is remembered, to be recalled: an index for each tenant and subject, folded from the log.
//!
//! An index is a database in memory: nothing that somebody wrote gets into a file here. It is
//! folded when it is asked, from where it was left, and folded anew after it made room or the
//! process ended: the log is all there is to it.

mod functions;
mod subject;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use convergio_domain::event::Event;
use convergio_domain::id::TenantId;
use convergio_domain::memory::{self, Item, MemoryId, Subject};
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{EventLog, LogError, Record};

use subject::{Index, Remembered};

/// Records read at once.
const PAGE: usize = 256;
/// Indices kept; the one that was not used for longest makes room.
const INDICES: usize = 256;
/// Memories that one answer holds at most.
pub const ITEMS_LIMIT: usize = 1000;

/// Why nothing can be recalled.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The index.
    #[error("the index of a memory: {0}")]
    Index(#[from] rusqlite::Error),
    /// The kernel refuses a value.
    #[error("the index of a memory: {0}")]
    Kernel(#[from] convergio_kernel_c::KernelError),
}

/// A subject's index, and how far it is folded.
struct Folded {
    index: Index,
    seq: Seq,
    /// Where the text of each memory lies.
    texts: HashMap<MemoryId, PayloadRef>,
}

struct Slot {
    folded: Arc<tokio::sync::Mutex<Option<Folded>>>,
    used: u64,
}

#[derive(Default)]
struct Slots {
    slots: HashMap<StreamKey, Slot>,
    clock: u64,
}

/// All that is remembered.
pub struct Memories {
    log: Arc<dyn EventLog>,
    slots: Mutex<Slots>,
}

impl Memories {
    /// What a log remembers.
    pub fn new(log: Arc<dyn EventLog>) -> Self {
        Self { log, slots: Mutex::default() }
    }

    /// A subject's memories, the newest first, at most `limit`.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn list(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        limit: usize,
    ) -> Result<Vec<Item>, MemoryError> {
        let limit = limit.min(ITEMS_LIMIT);
        self.ask(tenant, subject, |index| index.newest(limit)).await
    }

    /// A subject's memories that fit a question best, best first, together at most so many tokens.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn recall(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        question: &str,
        now: Timestamp,
        budget_tokens: u32,
    ) -> Result<Vec<Item>, MemoryError> {
        let ask = |index: &Index| index.best(question, now, ITEMS_LIMIT);
        let ranked = self.ask(tenant, subject, ask).await?;
        Ok(subject::packed(ranked, budget_tokens))
    }

    /// Whether a subject has this memory.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn has(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        memory: MemoryId,
    ) -> Result<bool, MemoryError> {
        let slot = self.slot(&memory::stream(tenant, subject));
        let mut folded = slot.lock().await;
        let folded = self.fold(&mut folded, &memory::stream(tenant, subject)).await?;
        Ok(folded.texts.contains_key(&memory))
    }

    /// Brings the index up to date and asks it. A text that was erased without a word in the
    /// stream is forgotten when it would be told.
    async fn ask(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        ask: impl Fn(&Index) -> Result<Vec<Item>, MemoryError>,
    ) -> Result<Vec<Item>, MemoryError> {
        let stream = memory::stream(tenant, subject);
        let slot = self.slot(&stream);
        let mut folded = slot.lock().await;
        let folded = self.fold(&mut folded, &stream).await?;
        loop {
            let items = ask(&folded.index)?;
            let mut erased = Vec::new();
            for item in &items {
                let Some(place) = folded.texts.get(&item.id) else { continue };
                if self.log.payload(&stream, *place).await?.is_none() {
                    erased.push(item.id);
                }
            }
            if erased.is_empty() {
                return Ok(items);
            }
            for memory in erased {
                folded.index.forget(memory)?;
                folded.texts.remove(&memory);
            }
        }
    }

    fn slot(&self, stream: &StreamKey) -> Arc<tokio::sync::Mutex<Option<Folded>>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.clock += 1;
        let used = slots.clock;
        if slots.slots.len() >= INDICES && !slots.slots.contains_key(stream) {
            let oldest = slots.slots.iter().min_by_key(|(_, slot)| slot.used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                slots.slots.remove(&oldest);
            }
        }
        let fresh = || Slot { folded: Arc::default(), used };
        let slot = slots.slots.entry(stream.clone()).or_insert_with(fresh);
        slot.used = used;
        Arc::clone(&slot.folded)
    }

    async fn fold<'a>(
        &self,
        folded: &'a mut Option<Folded>,
        stream: &StreamKey,
    ) -> Result<&'a mut Folded, MemoryError> {
        if folded.is_none() {
            let (seq, texts) = (Seq(0), HashMap::new());
            *folded = Some(Folded { index: Index::new()?, seq, texts });
        }
        let Some(known) = folded else { unreachable!("it was made just now") };
        loop {
            let records = self.log.read_stream(stream, known.seq, PAGE).await?;
            for record in &records {
                self.take(known, stream, record).await?;
            }
            if records.len() < PAGE {
                return Ok(known);
            }
        }
    }

    async fn take(
        &self,
        folded: &mut Folded,
        stream: &StreamKey,
        record: &Record,
    ) -> Result<(), MemoryError> {
        for recorded in record.events() {
            match recorded.event {
                Event::MemoryStored(stored) => {
                    // What was erased is not remembered.
                    let Some(text) = self.log.payload(stream, stored.text).await? else { continue };
                    folded.index.remember(&Remembered {
                        id: stored.memory,
                        text: &String::from_utf8_lossy(&text),
                        tokens: stored.tokens,
                        importance: stored.importance,
                        stored: recorded.time,
                    })?;
                    folded.texts.insert(stored.memory, stored.text);
                }
                Event::MemoryForgotten(forgotten) => {
                    folded.index.forget(forgotten.memory)?;
                    folded.texts.remove(&forgotten.memory);
                }
                _ => {}
            }
        }
        folded.seq = record.last_seq();
        Ok(())
    }
}
