//! Memories: store and forget one, with its text as a payload.

use bytes::Bytes;
use convergio_domain::memory::{
    self, MemoryId, MemoryNoun, MemoryRejection, MemoryStreamCommand, Subject, TEXT_LIMIT,
};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_eventstore::{CommitError, Payload};
use uuid::Uuid;

use crate::caller::Caller;
use crate::use_cases::UseCases;

/// A memory to store.
#[derive(Debug, Clone, Copy)]
pub struct MemoryWrite<'a> {
    /// Person or thing that the memory is about.
    pub subject: &'a Subject,
    /// Id of the memory; storing the same id again is idempotent.
    pub memory: MemoryId,
    /// Text of the memory, 1 to [`TEXT_LIMIT`] bytes.
    pub text: &'a str,
    /// Importance for ranking, from 0 to 1000.
    pub importance: u16,
}

/// Returns the id of the memory that a caller's request stores: derived from its key if it has one.
pub fn choose_memory_id(caller: &Caller) -> MemoryId {
    match &caller.key {
        // The text is that of the first interface: ids of stored memories derive from it.
        Some(key) => {
            let origin = format!("POST /v1/memories {}", key.as_str());
            MemoryId::from_call(&caller.tenant, &origin)
        }
        None => MemoryId(Uuid::now_v7()),
    }
}

impl UseCases<'_> {
    /// Stores a memory.
    ///
    /// # Errors
    /// The text is empty or too long, the subject has too many memories, or the log does not accept
    /// the commit.
    pub async fn store_memory(
        self,
        caller: &Caller,
        write: MemoryWrite<'_>,
    ) -> Result<(), CommitError<MemoryRejection>> {
        if !(1..=TEXT_LIMIT).contains(&write.text.len()) {
            return Err(CommitError::Rejected(MemoryRejection::Text));
        }
        let command = MemoryStreamCommand::Store {
            memory: write.memory,
            subject: write.subject.clone(),
            text: PayloadSlot(0),
            tokens: memory::estimate_tokens(write.text),
            importance: write.importance,
        };
        let text = Bytes::copy_from_slice(write.text.as_bytes());
        let payload = Payload::new(text, "text/plain", PayloadPurpose::Memory, Some(write.subject));
        let stream = memory::memory_stream(&caller.tenant, write.subject);
        let ask = |_: &_, _| (command.clone(), vec![payload.clone()]);
        let context = self.decision_context(caller);
        self.repository.submit_command::<MemoryNoun>(&stream, &context, ask).await
    }

    /// Forgets a memory and erases its text. Returns true if it was stored, false if it was
    /// forgotten before, `None` if it never existed. The call may be repeated after an
    /// interruption.
    ///
    /// # Errors
    /// The log cannot be read, or does not take it.
    pub async fn forget_memory(
        self,
        caller: &Caller,
        subject: &Subject,
        memory: MemoryId,
    ) -> Result<Option<bool>, CommitError<MemoryRejection>> {
        let stream = memory::memory_stream(&caller.tenant, subject);
        let before = self.repository.load::<MemoryNoun>(&stream).await?;
        let Some(kept) = before.state.memories.get(&memory).copied() else { return Ok(None) };
        let ask = |_: &_, _| (MemoryStreamCommand::Forget { memory }, Vec::new());
        let context = self.decision_context(caller);
        self.repository.submit_command::<MemoryNoun>(&stream, &context, ask).await?;
        // Erased even if the event was there before: an earlier call may have stopped in between.
        let erased = self.repository.erase_payload(&stream, kept.text).await;
        erased.map_err(CommitError::Append)?;
        Ok(Some(!kept.is_forgotten))
    }
}
