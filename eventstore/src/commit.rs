//! The input of an append: a [`Commit`] of one stream's events with their payloads, and its size
//! limits.

use bytes::Bytes;
use convergio_domain::decider::{Fingerprint, Wake};
use convergio_domain::event::Event;
use convergio_domain::id::{ActorId, Subject};
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::dedup::PayloadDelta;
use crate::error::AppendError;
use crate::record::StreamHead;

/// Maximum sizes of a commit, the same on every provider.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits;

impl LogLimits {
    /// Maximum bytes of the canonical body. Together with the 74 bytes of its header a record fits
    /// into one JetStream message of 1 MiB.
    pub const BODY_BYTES: usize = 512 << 10;
    /// Maximum number of events.
    pub const EVENTS: usize = 1024;
    /// Maximum number of payloads. The embedded log's payload row ids leave room for exactly 64 per
    /// record.
    pub const PAYLOADS: usize = 64;
    /// Maximum plaintext bytes of one payload.
    pub const PAYLOAD_BYTES: usize = 16 << 20;
    /// Maximum plaintext bytes of all payloads together.
    pub const PAYLOADS_BYTES: usize = 32 << 20;
}

/// A text or document that a person wrote or a model answered. It is sealed and kept outside the
/// hash chain, which holds only a commitment to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Plaintext bytes; the log encrypts them.
    pub bytes: Bytes,
    /// Media type (RFC 6838), for example `application/json`.
    pub media_type: String,
    /// Purpose of keeping the payload; retention and deduplication depend on it.
    pub purpose: PayloadPurpose,
    /// Pseudonymous reference of the person whom the payload is about; `None` if nobody.
    pub subject: Option<String>,
}

impl Payload {
    /// Creates a payload; `about` is the person whose erasure takes it along, if it is of one.
    pub fn new(
        bytes: Bytes,
        media_type: &str,
        purpose: PayloadPurpose,
        about: Option<&Subject>,
    ) -> Self {
        let subject = about.map(|subject| subject.as_str().to_owned());
        Self { bytes, media_type: media_type.to_owned(), purpose, subject }
    }

    /// Creates a payload of JSON text.
    pub fn from_json(
        bytes: impl Into<Bytes>,
        purpose: PayloadPurpose,
        about: Option<&Subject>,
    ) -> Self {
        Self::new(bytes.into(), "application/json", purpose, about)
    }

    /// Serialises a value as a payload.
    pub fn from_value(
        value: &impl Serialize,
        purpose: PayloadPurpose,
        about: Option<&Subject>,
    ) -> Self {
        // Serialising into memory fails only for a map whose keys are no texts: no value has one.
        Self::from_json(serde_json::to_vec(value).unwrap_or_default(), purpose, about)
    }
}

/// 1..n events of one stream, appended atomically. The repository makes it of a decision; nobody
/// outside of this crate can, but by an [`UndecidedCommit`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Commit {
    /// Stream that the events are appended to.
    pub stream: StreamKey,
    /// Idempotency key: a commit that is appended again with the same id is the same commit.
    pub id: Uuid,
    /// Head that the events were decided on (optimistic concurrency); `None` for a new stream.
    pub expected: Option<StreamHead>,
    /// Time at which the events occurred.
    pub time: Timestamp,
    /// Actor who caused the events.
    pub actor: ActorId,
    /// Events in order; never empty.
    pub events: Vec<Event>,
    /// Fingerprint of the stream's state after the events, if its noun can be replayed.
    pub fingerprint: Option<Fingerprint>,
    /// Payloads that the events refer to by slot.
    pub payloads: Vec<Payload>,
    /// Delta of each payload against earlier payloads of the stream, by index. Payloads beyond the
    /// end of this list are stored whole.
    pub deltas: Vec<Option<PayloadDelta>>,
    /// Time at which an executor must look at the stream again. Stored in an index, not in the hash
    /// chain.
    pub wake: Wake,
    /// Hint that a subscriber of [`LogReader::tail_pending`](crate::LogReader::tail_pending)
    /// appends to the stream at once: a log may make both commits durable with one sync.
    pub is_continued: bool,
}

/// Events that no decider decided, for a benchmark of a log or a test that plants a history.
/// Programs that serve anybody have no use for it: a test of the source lists the files that do.
#[derive(Debug, Clone)]
pub struct UndecidedCommit {
    /// Stream that the events are appended to.
    pub stream: StreamKey,
    /// Head that the events follow; `None` for a new stream.
    pub expected: Option<StreamHead>,
    /// Time at which the events occurred.
    pub time: Timestamp,
    /// Actor who caused the events.
    pub actor: ActorId,
    /// Events in order; never empty.
    pub events: Vec<Event>,
    /// Payloads that the events refer to by slot.
    pub payloads: Vec<Payload>,
    /// Time at which an executor must look at the stream again.
    pub wake: Wake,
}

impl From<UndecidedCommit> for Commit {
    /// Makes a commit with a new id, without a fingerprint and with whole payloads.
    fn from(undecided: UndecidedCommit) -> Self {
        let UndecidedCommit { stream, expected, time, actor, events, payloads, wake } = undecided;
        Self {
            stream,
            id: Uuid::now_v7(),
            expected,
            time,
            actor,
            events,
            fingerprint: None,
            payloads,
            deltas: Vec::new(),
            wake,
            is_continued: false,
        }
    }
}

impl Commit {
    /// Checks counts and payload sizes, which are known before the body is encoded.
    ///
    /// # Errors
    /// [`AppendError::TooLarge`] names the limit that is exceeded; an empty commit counts as one.
    pub(crate) fn check_limits(&self) -> Result<(), AppendError> {
        let too_large = |what, limit| Err(AppendError::TooLarge { what, limit });
        if self.events.is_empty() || self.events.len() > LogLimits::EVENTS {
            return too_large("the number of events in a commit", LogLimits::EVENTS);
        }
        if self.payloads.len() > LogLimits::PAYLOADS {
            return too_large("the number of payloads in a commit", LogLimits::PAYLOADS);
        }
        if self.payloads.iter().any(|payload| payload.bytes.len() > LogLimits::PAYLOAD_BYTES) {
            return too_large("a payload", LogLimits::PAYLOAD_BYTES);
        }
        if self.payloads.iter().map(|payload| payload.bytes.len()).sum::<usize>()
            > LogLimits::PAYLOADS_BYTES
        {
            return too_large("the payloads of a commit", LogLimits::PAYLOADS_BYTES);
        }
        Ok(())
    }
}
