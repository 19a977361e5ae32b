//! Use cases of memories: storing and forgetting one, with its text as a payload.

use bytes::Bytes;
use convergio_domain::decider::DecisionContext;
use convergio_domain::id::TenantId;
use convergio_domain::memory::{
    self, MemoryId, MemoryNoun, MemoryRejection, MemoryStreamCommand, Subject, TEXT_LIMIT,
};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};

use crate::commit::Payload;
use crate::repository::{CommitError, Repository};

/// A memory to store.
#[derive(Debug, Clone, Copy)]
pub struct MemoryWrite<'a> {
    /// Tenant that owns the memory.
    pub tenant: &'a TenantId,
    /// Person or thing that the memory is about.
    pub subject: &'a Subject,
    /// Id of the memory; storing the same id again is idempotent.
    pub memory: MemoryId,
    /// Text of the memory, 1 to [`TEXT_LIMIT`] bytes.
    pub text: &'a str,
    /// Importance for ranking, from 0 to 1000.
    pub importance: u16,
}

impl Repository {
    /// Stores a memory.
    ///
    /// # Errors
    /// The text is empty or too long, the subject has too many memories, or the log does not accept
    /// the commit.
    pub async fn store_memory(
        &self,
        context: &DecisionContext,
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
        let payload = Payload {
            bytes: Bytes::copy_from_slice(write.text.as_bytes()),
            media_type: "text/plain".into(),
            purpose: PayloadPurpose::Memory,
            subject: Some(write.subject.as_str().to_owned()),
        };
        let stream = memory::memory_stream(write.tenant, write.subject);
        let ask = |_: &_, _| (command.clone(), vec![payload.clone()]);
        self.submit_command::<MemoryNoun>(&stream, context, ask).await
    }

    /// Forgets a memory and erases its text. Returns true if it was stored, false if it was
    /// forgotten before, `None` if it never existed. The call may be repeated after an
    /// interruption.
    ///
    /// # Errors
    /// The log cannot be read, or does not take it.
    pub async fn forget_memory(
        &self,
        context: &DecisionContext,
        tenant: &TenantId,
        subject: &Subject,
        memory: MemoryId,
    ) -> Result<Option<bool>, CommitError<MemoryRejection>> {
        let stream = memory::memory_stream(tenant, subject);
        let before = self.load::<MemoryNoun>(&stream).await?;
        let Some(kept) = before.state.memories.get(&memory).copied() else { return Ok(None) };
        let ask = |_: &_, _| (MemoryStreamCommand::Forget { memory }, Vec::new());
        self.submit_command::<MemoryNoun>(&stream, context, ask).await?;
        // Erased even if the event was there before: an earlier call may have stopped in between.
        self.erase_payload(&stream, kept.text).await.map_err(CommitError::Append)?;
        Ok(Some(!kept.is_forgotten))
    }
}
