//! What is read: records, chained by hash, and where they stand.

use std::borrow::Cow;

use bytes::Bytes;
use convergio_domain::decider::{Fingerprint, Recorded};
use convergio_domain::event::{self, Event};
use convergio_domain::id::{ActorId, TenantId};
use convergio_domain::payload::Purpose;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::canonical::canonical;
use crate::error::LogError;
use crate::reuse::Reuse;

/// The place of a record in the whole log. Ordered; opaque to clients.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before the first record.
    pub const START: Self = Self(0);
}

/// The hash of a record: BLAKE3(previous hash ‖ canonical body).
pub type Hash = [u8; 32];

/// The end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Where its last record stands.
    pub position: Position,
    /// The number of its last event.
    pub seq: Seq,
    /// The hash of its last record.
    pub hash: Hash,
}

/// What a record says of a payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadMeta {
    /// SHA-256(salt ‖ plaintext), as hexadecimal digits.
    pub commitment: String,
    /// Bytes of the plaintext.
    pub bytes: u64,
    /// Its media type.
    pub media_type: String,
    /// Why it is kept.
    pub purpose: Purpose,
    /// Whom it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What of it is stored elsewhere in its stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
}

/// What is chained: everything of a commit but its place and its arrival, which differ by provider.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Body {
    /// Who caused the events.
    pub actor: ActorId,
    /// The commit's id.
    pub commit: Uuid,
    /// The events.
    pub events: Vec<Event>,
    /// The fingerprint of the stream's state after them, for nouns that can be replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<Fingerprint>,
    /// The payloads they refer to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub payloads: Vec<PayloadMeta>,
    /// The number of the first event.
    pub seq: Seq,
    /// The stream's name within its tenant.
    pub stream: String,
    /// The owner.
    pub tenant: TenantId,
    /// When the events occurred.
    pub time: Timestamp,
}

/// An event as it is written: its data is read once its form is known.
#[derive(Deserialize)]
struct WrittenEvent<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, rename = "type")]
    type_name: Cow<'a, str>,
}

/// The written form: events as texts, so that old forms can be brought up first.
#[derive(Deserialize)]
struct WrittenBody<'a> {
    actor: ActorId,
    commit: Uuid,
    #[serde(borrow)]
    events: Vec<WrittenEvent<'a>>,
    #[serde(default)]
    fold: Option<Fingerprint>,
    #[serde(default)]
    payloads: Vec<PayloadMeta>,
    seq: Seq,
    stream: String,
    tenant: TenantId,
    time: Timestamp,
}

impl Body {
    /// The canonical bytes (RFC 8785).
    ///
    /// # Errors
    /// An event holds a value that canonical JSON cannot write.
    pub fn canonical(&self) -> Result<Vec<u8>, serde_json::Error> {
        canonical(self)
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// They are not a body, hold no event, or one that this program does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        let written: WrittenBody =
            serde_json::from_slice(bytes).map_err(|error| LogError::corrupt("a record", &error))?;
        let WrittenBody { actor, commit, events, fold, payloads, seq, stream, tenant, time } =
            written;
        let decoded =
            events.iter().map(|event| event::decode_text(&event.type_name, event.data.get()));
        let events = decoded.collect::<Result<Vec<_>, _>>()?;
        if events.is_empty() {
            return Err(LogError::corrupt(&"a record", &"it holds no event"));
        }
        Ok(Self { actor, commit, events, fold, payloads, seq, stream, tenant, time })
    }
}

/// What can be said of canonical bytes without reading their events.
#[derive(Deserialize)]
pub(crate) struct Outline {
    events: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    pub(crate) payloads: Vec<PayloadMeta>,
    pub(crate) seq: Seq,
}

impl Outline {
    pub(crate) fn read(canonical: &[u8]) -> Result<Self, LogError> {
        serde_json::from_slice(canonical).map_err(|error| LogError::corrupt(&"a record", &error))
    }

    pub(crate) fn events(&self) -> u64 {
        self.events.len() as u64
    }
}

/// The hash of a record.
pub(crate) fn chain(previous: &Hash, canonical_body: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    hasher.update(canonical_body);
    *hasher.finalize().as_bytes()
}

/// One commit as it stands in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where it stands.
    pub position: Position,
    /// When the log took it.
    pub recorded_at: Timestamp,
    /// Its stream.
    pub stream: StreamKey,
    /// The hash of the stream's record before it; zeros for the first.
    pub prev_hash: Hash,
    /// Its own hash.
    pub hash: Hash,
    /// What happened.
    pub body: Body,
}

/// A record as it is written, its hash checked and its events not read: for copies of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Where it stands.
    pub position: Position,
    /// Its stream.
    pub stream: StreamKey,
    /// The number of its first event.
    pub seq: Seq,
    /// The hash of the stream's record before it; zeros for the first.
    pub prev_hash: Hash,
    /// Its own hash.
    pub hash: Hash,
    /// The canonical body.
    pub body: Bytes,
}

impl Record {
    /// The number of its first event.
    pub fn first_seq(&self) -> Seq {
        self.body.seq
    }

    /// The number of its last event.
    pub fn last_seq(&self) -> Seq {
        self.body.seq.plus(self.body.events.len() as u64 - 1)
    }

    /// The stream's head after it.
    pub fn head(&self) -> Head {
        Head { position: self.position, seq: self.last_seq(), hash: self.hash }
    }

    /// Its events, as a decider folds them.
    pub fn events(&self) -> impl Iterator<Item = Recorded<'_>> {
        let numbers = self.body.seq.0..;
        numbers.zip(&self.body.events).map(|(seq, event)| Recorded {
            seq: Seq(seq),
            time: self.body.time,
            event,
        })
    }

    /// The id of its `index`-th event: the commit's UUIDv7 with the index added to its random end.
    pub fn event_id(&self, index: usize) -> Uuid {
        let id = self.body.commit.as_u128();
        let random = (1_u128 << 62) - 1;
        let end = (id & random).wrapping_add(index as u128) & random;
        Uuid::from_u128((id & !random) | end)
    }
}
