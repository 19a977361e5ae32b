//! Requests under an idempotency key: the key is bound to one request for ever, the first final
//! answer is recorded, and what a request created is found again.

use bytes::Bytes;
use convergio_domain::id::RunId;
use convergio_domain::payload::{PayloadPurpose, PayloadRef, PayloadSlot};
use convergio_domain::request::{
    self, RequestCommand, RequestMismatch, RequestNoun, RequestState, StoredAnswer,
};
use convergio_domain::run::{Run, RunRejection, RunState};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{CommitError, LogError, Payload};

use crate::caller::{Caller, IdempotencyKey};
use crate::use_cases::UseCases;

/// Hashes a request's scope and body (BLAKE3, hex) to tell a repetition from another request.
pub fn request_hash(scope: &str, body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(scope.as_bytes());
    // Keeps scope and body apart.
    hasher.update(&[0]);
    hasher.update(body);
    hasher.finalize().to_hex().to_string()
}

impl<'a> UseCases<'a> {
    /// Rejects a key that an older log has bound to another request of the same scope. Logs written
    /// before answers were recorded bound keys for each scope.
    ///
    /// # Errors
    /// The key is bound to another request, or the log cannot be read.
    pub async fn check_scoped_key(
        self,
        caller: &Caller,
        scope: &str,
        body: &[u8],
    ) -> Result<(), CommitError<RequestMismatch>> {
        let Some(key) = &caller.key else { return Ok(()) };
        let id = request::scoped_request_id(&caller.tenant, scope, key.as_str());
        // New logs have no such stream: the loaded state is then unbound.
        let stream = StreamKey::for_request(caller.tenant.clone(), id);
        let bound = self.repository.load::<RequestNoun>(&stream).await?.state;
        bound.is_bound_to(&request_hash(scope, body)).map_err(CommitError::Rejected)?;
        Ok(())
    }

    /// Finds the run whose id derives from a key, if the same request has created it already.
    ///
    /// # Errors
    /// A rejection if the run is an import or belongs to another request.
    pub(crate) async fn find_run(
        self,
        caller: &Caller,
        run: RunId,
        request_hash: &str,
    ) -> Result<Option<RunState>, CommitError<RunRejection>> {
        let stream = caller.run_stream(run);
        if self.repository.event_log().stream_head(&stream).await?.is_none() {
            return Ok(None);
        }
        let state = self.repository.load::<Run>(&stream).await?.state;
        if state.is_imported {
            return Err(CommitError::Rejected(RunRejection::Imported));
        }
        if state.request_hash == request_hash {
            return Ok(Some(state));
        }
        Err(CommitError::Rejected(RunRejection::IdempotencyMismatch))
    }

    /// Names a request by its key and its hash.
    pub fn keyed_request(
        self,
        caller: &'a Caller,
        key: &IdempotencyKey,
        request_hash: String,
    ) -> KeyedRequest<'a> {
        let id = request::request_id(&caller.tenant, key.as_str());
        let stream = StreamKey::for_request(caller.tenant.clone(), id);
        KeyedRequest { use_cases: self, caller, stream, request_hash }
    }
}

/// A request with its idempotency key, bound to a stream of the log.
pub struct KeyedRequest<'a> {
    use_cases: UseCases<'a>,
    caller: &'a Caller,
    stream: StreamKey,
    request_hash: String,
}

impl KeyedRequest<'_> {
    /// Binds the key to the request; returns the recorded answer, if there is one.
    ///
    /// # Errors
    /// The key is bound to another request, or the log does not take the commit.
    pub async fn bind_key(
        &self,
    ) -> Result<Option<StoredAnswer<PayloadRef>>, CommitError<RequestMismatch>> {
        let request_hash = &self.request_hash;
        let command = |_: &RequestState, _| {
            (RequestCommand::Accept { request_hash: request_hash.clone() }, Vec::new())
        };
        let (repository, context) =
            (self.use_cases.repository, self.use_cases.decision_context(self.caller));
        let bound = repository.execute::<RequestNoun>(&self.stream, &context, command).await?;
        Ok(bound.state.answer)
    }

    /// Reads the body of a recorded answer; `None` if it was erased.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn read_body(&self, body: PayloadRef) -> Result<Option<Bytes>, LogError> {
        self.use_cases.repository.read_payload(&self.stream, body).await
    }

    /// Records the answer before it is sent. Returns the one that a concurrent request under the
    /// same key was given before, if any.
    ///
    /// # Errors
    /// The log does not take the commit.
    pub async fn record_answer(
        &self,
        answer: StoredAnswer<Bytes>,
    ) -> Result<Option<StoredAnswer<PayloadRef>>, CommitError<RequestMismatch>> {
        let StoredAnswer { status, media_type, body } = answer;
        let payload = Payload::new(body, &media_type, PayloadPurpose::Answer, None);
        let answer = StoredAnswer { status, media_type, body: PayloadSlot(0) };
        let mut answer_before = None;
        let command = |state: &RequestState, _| {
            // The command runs again after a conflict; the last try sees the state that counts.
            answer_before.clone_from(&state.answer);
            let (request_hash, answer) = (self.request_hash.clone(), answer.clone());
            (RequestCommand::Answer { request_hash, answer }, vec![payload.clone()])
        };
        let (repository, context) =
            (self.use_cases.repository, self.use_cases.decision_context(self.caller));
        repository.execute::<RequestNoun>(&self.stream, &context, command).await?;
        Ok(answer_before)
    }
}
