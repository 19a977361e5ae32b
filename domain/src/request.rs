//! The request noun: an idempotency key is bound to one request for ever, and keeps its answer.

use crate::decider::{Context, Decider, Recorded, Wake};
use crate::event::Event;
use crate::event::request::{Accepted, Answered};
use crate::id::TenantId;
use crate::payload::{PayloadRef, PayloadSlot};
use crate::stream::Seq;
use uuid::Uuid;

/// Most bytes of a stored answer; a request with a larger one is evaluated again.
pub const ANSWER_BYTES_LIMIT: usize = 256 << 10;

/// Decider of the request stream.
#[derive(Debug, Clone, Copy)]
pub struct Request;

/// State of an idempotency key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Hash of the request that the key is bound to.
    pub request_hash: Option<String>,
    /// The first answer to that request.
    pub answer: Option<Answer<PayloadRef>>,
}

/// An HTTP answer; `B` is the place of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<B> {
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
        answer: Answer<PayloadSlot>,
    },
}

/// Rejection of a key that was used for another request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this idempotency key was used for another request: use a new key")]
pub struct Mismatch;

/// Derives the id of a key's stream, and of the request that the key is bound to: UUIDv8 of
/// BLAKE3(`request/v2` ‖ tenant ‖ key).
pub fn request_id(tenant: &TenantId, key: &str) -> Uuid {
    derived_uuid(&["request/v2", tenant.as_str(), key])
}

/// Derives the id of a key's stream as earlier versions did, which bound a key in each scope.
pub fn scoped_request_id(tenant: &TenantId, scope: &str, key: &str) -> Uuid {
    derived_uuid(&["request/v1", tenant.as_str(), scope, key])
}

/// Derives a UUIDv8 from the BLAKE3 of parts, each closed by a zero byte.
pub fn derived_uuid(parts: &[&str]) -> Uuid {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

impl State {
    /// Returns whether the key is bound to this request; false while it is bound to none.
    ///
    /// # Errors
    /// The key is bound to another request.
    pub fn is_bound_to(&self, request_hash: &str) -> Result<bool, Mismatch> {
        match &self.request_hash {
            None => Ok(false),
            Some(hash) if hash == request_hash => Ok(true),
            Some(_) => Err(Mismatch),
        }
    }
}

impl Decider for Request {
    type State = State;
    type Command = RequestCommand;
    type Rejection = Mismatch;

    fn decide(
        state: &State,
        command: RequestCommand,
        _context: &Context,
        next: Seq,
    ) -> Result<Vec<Event>, Mismatch> {
        match command {
            RequestCommand::Accept { request_hash } => match state.is_bound_to(&request_hash)? {
                true => Ok(Vec::new()),
                false => Ok(vec![Event::RequestAccepted(Accepted { request_hash })]),
            },
            RequestCommand::Answer { request_hash, answer } => {
                let is_bound = state.is_bound_to(&request_hash)?;
                // The first answer stands: a repeat of the request must see the same one for ever.
                if !is_bound || state.answer.is_some() {
                    return Ok(Vec::new());
                }
                let Answer { status, media_type, body } = answer;
                let answered = Answered { status, media_type, body: body.at(next) };
                Ok(vec![Event::RequestAnswered(answered)])
            }
        }
    }

    fn evolve(state: &mut State, recorded: Recorded<'_>) {
        match recorded.event {
            Event::RequestAccepted(accepted) => {
                state.request_hash = Some(accepted.request_hash.clone());
            }
            Event::RequestAnswered(answered) => {
                state.answer = Some(Answer {
                    status: answered.status,
                    media_type: answered.media_type.clone(),
                    body: answered.body,
                });
            }
            _ => {}
        }
    }

    fn wake(_state: &State) -> Wake {
        Wake::Done
    }
}
