//! Remembering and forgetting: the commands of a memory, with their payloads.

use bytes::Bytes;
use convergio_domain::decider::Context;
use convergio_domain::id::TenantId;
use convergio_domain::memory::{self, Command, Memory, MemoryId, Rejection, Subject, TEXT_LIMIT};
use convergio_domain::payload::{PayloadSlot, Purpose};

use crate::commit::Payload;
use crate::repository::{CommitError, Repository};

/// What is to be remembered.
#[derive(Debug, Clone, Copy)]
pub struct Remember<'a> {
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// Whom or what it is about.
    pub subject: &'a Subject,
    /// Its id: the same again is the same memory.
    pub memory: MemoryId,
    /// What it says.
    pub text: &'a str,
    /// From 0 to 1000.
    pub importance: u16,
}

impl Repository {
    /// Remembers a text.
    ///
    /// # Errors
    /// The text is empty or too long, the subject has too many memories, or the log does not take
    /// it.
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

    /// Forgets a memory and erases its text. True if it was remembered, false if it was forgotten
    /// before, nothing if it never was. It can be done again when it was interrupted.
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
        self.erase_payload(&stream, kept.text).await.map_err(CommitError::Append)?;
        Ok(Some(!kept.is_forgotten))
    }
}
