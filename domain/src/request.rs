//! The request noun: an idempotency key is bound to one request for ever.

use crate::decider::{Context, Decider, Recorded, Wake};
use crate::event::{Event, request::Accepted};
use crate::id::TenantId;
use crate::stream::Seq;
use uuid::Uuid;

/// The rules of a request.
#[derive(Debug, Clone, Copy)]
pub struct Request;

/// What is known of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The request that the key is bound to.
    pub request_hash: Option<String>,
}

/// Binds the key to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accept {
    /// BLAKE3 of method, path and body.
    pub request_hash: String,
}

/// The key was used for another request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this idempotency key was used for another request: use a new key")]
pub struct Mismatch;

/// The id of a key's stream: UUIDv8 of BLAKE3(`request/v1` ‖ tenant ‖ scope ‖ key).
pub fn request_id(tenant: &TenantId, scope: &str, key: &str) -> Uuid {
    derived_uuid(&["request/v1", tenant.as_str(), scope, key])
}

/// A UUIDv8 from the BLAKE3 of parts, each closed by a zero byte.
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

impl Decider for Request {
    type State = State;
    type Command = Accept;
    type Rejection = Mismatch;

    fn decide(
        state: &State,
        command: Accept,
        _context: &Context,
        _next: Seq,
    ) -> Result<Vec<Event>, Mismatch> {
        match &state.request_hash {
            None => {
                let accepted = Accepted { request_hash: command.request_hash };
                Ok(vec![Event::RequestAccepted(accepted)])
            }
            Some(hash) if *hash == command.request_hash => Ok(Vec::new()),
            Some(_) => Err(Mismatch),
        }
    }

    fn evolve(state: &mut State, recorded: Recorded<'_>) {
        if let Event::RequestAccepted(accepted) = recorded.event {
            state.request_hash = Some(accepted.request_hash.clone());
        }
    }

    fn wake(_state: &State) -> Wake {
        Wake::Done
    }
}
