//! Access tokens of a tenant: read them, and issue, rotate, revoke or admit one.

use convergio_domain::id::TenantId;
use convergio_domain::idempotency::{IdempotentNoun, RequestedCommand};
use convergio_domain::token::{TokenCommand, TokenNoun, TokenRejection, token_stream};
use convergio_eventstore::{CommitError, LoadedStream, LogError};

use crate::caller::Caller;
use crate::use_cases::UseCases;

impl UseCases<'_> {
    /// Loads the tokens of a tenant, those that were revoked included.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn load_tokens(self, tenant: &TenantId) -> Result<LoadedStream<TokenNoun>, LogError> {
        self.repository.load(&token_stream(tenant)).await
    }

    /// Changes the tokens of the caller's tenant; a repeated request changes nothing. Whether the
    /// caller may do it is decided by the command.
    ///
    /// # Errors
    /// The command is rejected, or the log does not take it.
    pub async fn change_tokens(
        self,
        caller: &Caller,
        command: TokenCommand,
    ) -> Result<LoadedStream<TokenNoun>, CommitError<TokenRejection>> {
        let (stream, context) = (token_stream(&caller.tenant), self.decision_context(caller));
        let command = RequestedCommand { request: caller.request_id(), command };
        let command = |_: &_, _| (command.clone(), Vec::new());
        let (repository, stream) = (self.repository, &stream);
        let changed = repository.execute::<IdempotentNoun<TokenNoun>>(stream, &context, command);
        Ok(changed.await?.into_noun())
    }
}
