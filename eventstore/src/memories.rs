//! Use cases of memories: storing and forgetting one, with its text as a payload.

use bytes::Bytes;
use convergio_domain::decider::Context;
use convergio_domain::id::TenantId;
use convergio_domain::memory::{self, Command, Memory, MemoryId, Rejection, Subject, TEXT_LIMIT};
use convergio_domain::payload::{PayloadSlot, Purpose};

use crate::commit::Payload;
use crate::repository::{CommitError, Repository};

/// A memory to store.
#[derive(Debug, Clone, Copy)]
pub struct Remember<'a> {
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
    pub async fn remember(
        &self,
        context: &Context,
        what: Remember<'_>,
    ) -> Result<(), CommitError<Rejection>> {
        if !(1..=TEXT_LIMIT).contains(&what.text.len()) {
            return Err(CommitError::Rejected(Rejection::Text));
        }
        let command = Command::Store {
            memory: what.memory,
            subject: what.subject.clone(),
            text: PayloadSlot(0),
            tokens: memory::tokens(what.text),
            importance: what.importance,
        };
        let payload = Payload {
            bytes: Bytes::copy_from_slice(what.text.as_bytes()),
            media_type: "text/plain".into(),
            purpose: Purpose::Memory,
            subject: Some(what.subject.as_str().to_owned()),
        };
        let stream = memory::stream(what.tenant, what.subject);
        let ask = |_: &_, _| (command.clone(), vec![payload.clone()]);
        self.submit::<Memory>(&stream, context, ask).await
    }

    /// Forgets a memory and erases its text. Returns true if it was stored, false if it was
    /// forgotten before, `None` if it never existed. The call may be repeated after an
    /// interruption.
    ///
    /// # Errors
    /// The log cannot be read, or does not take it.
    pub async fn forget(
        &self,
        context: &Context,
        tenant: &TenantId,
        subject: &Subject,
        memory: MemoryId,
    ) -> Result<Option<bool>, CommitError<Rejection>> {
        let stream = memory::stream(tenant, subject);
        let before = self.load::<Memory>(&stream).await?;
        let Some(kept) = before.state.memories.get(&memory).copied() else { return Ok(None) };
        let ask = |_: &_, _| (Command::Forget { memory }, Vec::new());
        self.submit::<Memory>(&stream, context, ask).await?;
        // Erased even if the event was there before: an earlier call may have stopped in between.
        self.erase_payload(&stream, kept.text).await.map_err(CommitError::Append)?;
        Ok(Some(!kept.is_forgotten))
    }
}
