//! Records as they are read: bodies chained by hash, and their positions in the log.

use std::borrow::Cow;

use bytes::Bytes;
use convergio_domain::decider::{Fingerprint, RecordedEvent};
use convergio_domain::event::{self, Event};
use convergio_domain::id::{ActorId, TenantId};
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::canonical::to_canonical_json;
use crate::dedup::PayloadDelta;
use crate::error::LogError;

/// Position of a record in the whole log. Ordered; opaque to clients.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// The position before the first record.
    pub const START: Self = Self(0);
}

/// Hash of a record: BLAKE3(previous hash ‖ canonical body).
pub type Hash = [u8; 32];

/// End of a stream: where its last record and its last event are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHead {
    /// Position of the last record.
    pub position: Position,
    /// Sequence number of the last event.
    pub seq: Seq,
    /// Hash of the last record.
    pub hash: Hash,
}

/// Metadata of a payload inside the record: what the hash chain commits to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadMeta {
    /// Commitment: SHA-256(salt ‖ plaintext), as 64 hexadecimal digits.
    pub commitment: String,
    /// Length of the plaintext in bytes.
    pub bytes: u64,
    /// Media type of the plaintext.
    pub media_type: String,
    /// Purpose of keeping the payload.
    pub purpose: PayloadPurpose,
    /// Pseudonymous reference of the person whom the payload is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Parts that are stored by earlier payloads of the stream; `None` if it is stored whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<PayloadDelta>,
}

/// Content of a commit that is hashed: all but position and arrival time, which differ by provider.
/// Fields stand in the order of canonical JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordBody {
    /// Actor who caused the events.
    pub actor: ActorId,
    /// Id of the commit (UUIDv7).
    pub commit: Uuid,
    /// Events in order; never empty.
    pub events: Vec<Event>,
    /// Fingerprint of the stream's state after the events, for nouns that can be replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<Fingerprint>,
    /// Payloads that the events refer to, by slot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub payloads: Vec<PayloadMeta>,
    /// Sequence number of the first event.
    pub seq: Seq,
    /// Name of the stream within its tenant, for example `run/UUID`.
    pub stream: String,
    /// Tenant that owns the stream.
    pub tenant: TenantId,
    /// Time at which the events occurred.
    pub time: Timestamp,
}

/// An event whose data stays raw JSON until its type is known, so that upcasters may run first.
#[derive(Deserialize)]
struct StoredEvent<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, rename = "type")]
    type_name: Cow<'a, str>,
}

/// [`RecordBody`] as stored: events are raw, so that older versions can be upcast while decoding.
#[derive(Deserialize)]
struct StoredBody<'a> {
    actor: ActorId,
    commit: Uuid,
    #[serde(borrow)]
    events: Vec<StoredEvent<'a>>,
    #[serde(default)]
    fold: Option<Fingerprint>,
    #[serde(default)]
    payloads: Vec<PayloadMeta>,
    seq: Seq,
    stream: String,
    tenant: TenantId,
    time: Timestamp,
}

impl RecordBody {
    /// Encodes the body as canonical JSON (RFC 8785), the bytes that are hashed.
    ///
    /// # Errors
    /// An event holds a value that canonical JSON cannot write.
    pub fn to_canonical_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        to_canonical_json(self)
    }

    /// Decodes canonical JSON; events of older versions are upcast.
    ///
    /// # Errors
    /// The bytes are not a body, or they hold no event or an event type that this program does not
    /// know.
    pub fn from_canonical_json(bytes: &[u8]) -> Result<Self, LogError> {
        let stored: StoredBody =
            serde_json::from_slice(bytes).map_err(|error| LogError::corrupt("a record", &error))?;
        let StoredBody { actor, commit, events, fold, payloads, seq, stream, tenant, time } =
            stored;
        let decoded =
            events.iter().map(|event| event::decode_event_text(&event.type_name, event.data.get()));
        let events = decoded.collect::<Result<Vec<_>, _>>()?;
        if events.is_empty() {
            return Err(LogError::corrupt(&"a record", &"it holds no event"));
        }
        Ok(Self { actor, commit, events, fold, payloads, seq, stream, tenant, time })
    }
}

/// Parts of a body that can be read without decoding its events.
#[derive(Deserialize)]
pub(crate) struct BodyOutline {
    events: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    pub(crate) payloads: Vec<PayloadMeta>,
    pub(crate) seq: Seq,
}

impl BodyOutline {
    pub(crate) fn read(canonical: &[u8]) -> Result<Self, LogError> {
        serde_json::from_slice(canonical).map_err(|error| LogError::corrupt(&"a record", &error))
    }

    pub(crate) fn event_count(&self) -> u64 {
        self.events.len() as u64
    }
}

/// Computes the hash of a record in its stream's chain.
pub(crate) fn chain_hash(previous: &Hash, canonical_body: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    hasher.update(canonical_body);
    *hasher.finalize().as_bytes()
}

/// One commit as it is in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Position in the whole log.
    pub position: Position,
    /// Time at which the log took the commit. It differs by provider and is not hashed.
    pub recorded_at: Timestamp,
    /// Stream that the record belongs to.
    pub stream: StreamKey,
    /// Hash of the stream's previous record; zeros for the first.
    pub prev_hash: Hash,
    /// Hash of this record.
    pub hash: Hash,
    /// Decoded body with the events.
    pub body: RecordBody,
}

/// A record as canonical bytes: its hash is checked, its events are not decoded. For copies of the
/// log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Position in the whole log.
    pub position: Position,
    /// Stream that the record belongs to.
    pub stream: StreamKey,
    /// Sequence number of the first event.
    pub seq: Seq,
    /// Hash of the stream's previous record; zeros for the first.
    pub prev_hash: Hash,
    /// Hash of this record.
    pub hash: Hash,
    /// Canonical JSON of the body.
    pub body: Bytes,
}

impl Record {
    /// Returns the sequence number of the first event.
    pub fn first_seq(&self) -> Seq {
        self.body.seq
    }

    /// Returns the sequence number of the last event.
    pub fn last_seq(&self) -> Seq {
        self.body.seq.offset_by(self.body.events.len() as u64 - 1)
    }

    /// Returns the stream's head after this record.
    pub fn stream_head(&self) -> StreamHead {
        StreamHead { position: self.position, seq: self.last_seq(), hash: self.hash }
    }

    /// Iterates over the events with sequence number and time, as a decider folds them.
    pub fn recorded_events(&self) -> impl Iterator<Item = RecordedEvent<'_>> {
        let numbers = self.body.seq.0..;
        numbers.zip(&self.body.events).map(|(seq, event)| RecordedEvent {
            seq: Seq(seq),
            time: self.body.time,
            event,
        })
    }

    /// Derives the id of the `index`-th event: the commit's UUIDv7 with the index added to its 62
    /// random bits, so that version and variant bits stay.
    pub fn event_id(&self, index: usize) -> Uuid {
        let id = self.body.commit.as_u128();
        let random = (1_u128 << 62) - 1;
        let end = (id & random).wrapping_add(index as u128) & random;
        Uuid::from_u128((id & !random) | end)
    }
}
