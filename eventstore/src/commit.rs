//! What is appended: events of one stream, with their payloads.

use bytes::Bytes;
use convergio_domain::decider::{Fingerprint, Wake};
use convergio_domain::event::Event;
use convergio_domain::id::ActorId;
use convergio_domain::payload::Purpose;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use uuid::Uuid;

use crate::error::AppendError;
use crate::record::Head;
use crate::reuse::Reuse;

/// What a commit may hold at most. The same on every provider.
#[derive(Debug, Clone, Copy)]
pub struct Limits;

impl Limits {
    /// Bytes of the canonical body.
    pub const BODY_BYTES: usize = 512 << 10;
    /// Events.
    pub const EVENTS: usize = 1024;
    /// Payloads.
    pub const PAYLOADS: usize = 64;
    /// Bytes of one payload.
    pub const PAYLOAD_BYTES: usize = 16 << 20;
    /// Bytes of all payloads.
    pub const PAYLOADS_BYTES: usize = 32 << 20;
}

/// What a person wrote or a model answered; sealed and kept outside the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The plaintext.
    pub bytes: Bytes,
    /// Its media type.
    pub media_type: String,
    /// Why it is kept.
    pub purpose: Purpose,
    /// Whom it is about, as a pseudonymous reference.
    pub subject: Option<String>,
}

/// 1..n events of one stream, appended all or not at all.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The stream.
    pub stream: StreamKey,
    /// Identity: the same id again is the same commit.
    pub id: Uuid,
    /// The head that the events were decided on; `None` for a new stream.
    pub expected: Option<Head>,
    /// When the events occurred.
    pub time: Timestamp,
    /// Who caused them.
    pub actor: ActorId,
    /// The events.
    pub events: Vec<Event>,
    /// The fingerprint of the stream's state after them.
    pub fold: Option<Fingerprint>,
    /// The payloads that the events refer to.
    pub payloads: Vec<Payload>,
    /// What of each payload is stored elsewhere in the stream; payloads beyond its end are whole.
    pub reuse: Vec<Option<Reuse>>,
    /// When the stream wants to be looked at after this commit. Kept as an index, not in the chain.
    pub wake: Wake,
    /// Whether somebody who follows [`EventLog::early`](crate::EventLog::early) goes on from this
    /// commit at once: a log may make both durable together.
    pub is_continued: bool,
}

impl Commit {
    /// Checks everything that can be checked before encoding.
    pub(crate) fn check(&self) -> Result<(), AppendError> {
        let too_large = |what, limit| Err(AppendError::TooLarge { what, limit });
        if self.events.is_empty() || self.events.len() > Limits::EVENTS {
            return too_large("the number of events in a commit", Limits::EVENTS);
        }
        if self.payloads.len() > Limits::PAYLOADS {
            return too_large("the number of payloads in a commit", Limits::PAYLOADS);
        }
        if self.payloads.iter().any(|payload| payload.bytes.len() > Limits::PAYLOAD_BYTES) {
            return too_large("a payload", Limits::PAYLOAD_BYTES);
        }
        if self.payloads.iter().map(|payload| payload.bytes.len()).sum::<usize>()
            > Limits::PAYLOADS_BYTES
        {
            return too_large("the payloads of a commit", Limits::PAYLOADS_BYTES);
        }
        Ok(())
    }
}
