//! The request noun: an idempotency key is bound to one request for ever, and keeps its answer. Its
//! events are in [`event`], its rules here.

pub mod event;

use event::{RequestAccepted, RequestAnswered, RequestEvent};

use crate::decider::{Decider, DecisionContext, RecordedEvent, Wake};
use crate::id::TenantId;
pub use crate::id::derive_uuid;
use crate::payload::{PayloadRef, PayloadSlot};
use crate::stream::Seq;
use uuid::Uuid;

/// Most bytes of a stored answer; a request with a larger one is evaluated again.
pub const ANSWER_BYTES_LIMIT: usize = 256 << 10;

/// Decider of the request stream.
#[derive(Debug, Clone, Copy)]
pub struct RequestNoun;

/// State of an idempotency key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestState {
    /// Hash of the request that the key is bound to.
    pub request_hash: Option<String>,
    /// The first answer to that request.
    pub answer: Option<StoredAnswer<PayloadRef>>,
}

/// An HTTP answer; `B` is the place of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer<B> {
    /// Status code of the answer.
    pub status: u16,
    /// Media type of the body.
    pub media_type: String,
    /// Body, byte for byte.
    pub body: B,
}

/// Commands of the request stream. Each names its request by the BLAKE3 of caller, method, path,
/// query and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestCommand {
    /// Binds the key to a request.
    Accept {
        /// Hash of the request.
        request_hash: String,
    },
    /// Stores the answer; the first one stays.
    Answer {
        /// Hash of the request.
        request_hash: String,
        /// Answer to be stored.
        answer: StoredAnswer<PayloadSlot>,
    },
}

/// Rejection of a key that was used for another request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this idempotency key was used for another request: use a new key")]
pub struct RequestMismatch;

/// Derives the id of a key's stream, and of the request that the key is bound to: UUIDv8 of
/// BLAKE3(`request/v2` ‖ tenant ‖ key).
pub fn request_id(tenant: &TenantId, key: &str) -> Uuid {
    derive_uuid(&["request/v2", tenant.as_str(), key])
}

/// Derives the id of a key's stream as earlier versions did, which bound a key in each scope.
pub fn scoped_request_id(tenant: &TenantId, scope: &str, key: &str) -> Uuid {
    derive_uuid(&["request/v1", tenant.as_str(), scope, key])
}

impl RequestState {
    /// Returns whether the key is bound to this request; false while it is bound to none.
    ///
    /// # Errors
    /// The key is bound to another request.
    pub fn is_bound_to(&self, request_hash: &str) -> Result<bool, RequestMismatch> {
        match &self.request_hash {
            None => Ok(false),
            Some(hash) if hash == request_hash => Ok(true),
            Some(_) => Err(RequestMismatch),
        }
    }
}

impl Decider for RequestNoun {
    type State = RequestState;
    type Command = RequestCommand;
    type Event = RequestEvent;
    type Rejection = RequestMismatch;

    fn decide(
        state: &RequestState,
        command: RequestCommand,
        _context: &DecisionContext,
        next: Seq,
    ) -> Result<Vec<RequestEvent>, RequestMismatch> {
        match command {
            RequestCommand::Accept { request_hash } => match state.is_bound_to(&request_hash)? {
                true => Ok(Vec::new()),
                false => Ok(vec![RequestEvent::RequestAccepted(RequestAccepted { request_hash })]),
            },
            RequestCommand::Answer { request_hash, answer } => {
                let is_bound = state.is_bound_to(&request_hash)?;
                // The first answer stands: a repeat of the request must see the same one for ever.
                if !is_bound || state.answer.is_some() {
                    return Ok(Vec::new());
                }
                let StoredAnswer { status, media_type, body } = answer;
                let answered =
                    RequestAnswered { status, media_type, body: body.to_payload_ref(next) };
                Ok(vec![RequestEvent::RequestAnswered(answered)])
            }
        }
    }

    fn evolve(state: &mut RequestState, recorded: RecordedEvent<'_, RequestEvent>) {
        match recorded.event {
            RequestEvent::RequestAccepted(accepted) => {
                state.request_hash = Some(accepted.request_hash.clone());
            }
            RequestEvent::RequestAnswered(answered) => {
                state.answer = Some(StoredAnswer {
                    status: answered.status,
                    media_type: answered.media_type.clone(),
                    body: answered.body,
                });
            }
            // In streams of other nouns, whose deciders fold it by `evolve_request`.
            RequestEvent::RequestApplied(_) => {}
        }
    }

    fn next_wake(_state: &RequestState) -> Wake {
        Wake::Done
    }
}
