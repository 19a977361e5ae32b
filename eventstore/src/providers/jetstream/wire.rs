//! How records stand in JetStream: one message a record, its subject the stream, its headers what
//! is beside the chain, its body the canonical bytes.

use std::str::FromStr;

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use convergio_domain::decider::Wake;
use convergio_domain::id::TenantId;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use uuid::Uuid;

use crate::error::LogError;
use crate::prepare::Prepared;
use crate::record::{Body, Hash, Position, Record, chain};
use crate::seal::hex;

const HASH: &str = "Cvg-Hash";
const PREVIOUS: &str = "Cvg-Prev";
const WAKE: &str = "Cvg-Wake";
const MESSAGE_ID: &str = "Nats-Msg-Id";
pub(super) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
pub(super) const EXPECTED_STREAM: &str = "Nats-Expected-Stream";

/// The names of a log's streams and subjects.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// The stream of records.
    pub(super) log: String,
    /// The stream of sealed payloads.
    pub(super) payloads: String,
    /// The stream of what is derived: snapshots of the wake index.
    pub(super) derived: String,
    prefix: String,
}

impl Names {
    pub(super) fn new(name: &str) -> Self {
        Self {
            log: format!("{name}_LOG"),
            payloads: format!("{name}_PAYLOAD"),
            derived: format!("{name}_DERIVED"),
            prefix: name.to_ascii_lowercase(),
        }
    }

    /// Matches every record.
    pub(super) fn all_records(&self) -> String {
        format!("{}.log.>", self.prefix)
    }

    /// Matches every payload.
    pub(super) fn all_payloads(&self) -> String {
        format!("{}.payload.>", self.prefix)
    }

    /// Matches everything that is derived.
    pub(super) fn all_derived(&self) -> String {
        format!("{}.derived.>", self.prefix)
    }

    /// The subject of a stream: also what an expected version is compared on.
    pub(super) fn records(&self, stream: &StreamKey) -> String {
        let StreamKey { tenant, kind, id } = stream;
        format!("{}.log.{tenant}.{}.{id}", self.prefix, kind.as_str())
    }

    /// The subject of a piece of a payload. It holds the commit and the commitment, so that rivals
    /// never write over each other.
    pub(super) fn payload(&self, place: &PayloadPlace<'_>, piece: usize) -> String {
        let PayloadPlace { stream, commit, index, commitment } = place;
        let StreamKey { tenant, kind, id } = stream;
        let tag = commitment.get(..16).unwrap_or(commitment);
        let kind = kind.as_str();
        let prefix = &self.prefix;
        format!("{prefix}.payload.{tenant}.{kind}.{id}.{commit}.{index}.{tag}.{piece}")
    }

    /// The subject of something derived.
    pub(super) fn derived(&self, what: &str) -> String {
        format!("{}.derived.{what}", self.prefix)
    }

    fn stream_of(&self, subject: &str) -> Option<StreamKey> {
        let rest = subject.strip_prefix(self.prefix.as_str())?.strip_prefix(".log.")?;
        let (tenant, name) = rest.split_once('.')?;
        let tenant: TenantId = tenant.parse().ok()?;
        StreamKey::parse(tenant, &name.replacen('.', "/", 1)).ok()
    }
}

/// Which payload.
pub(super) struct PayloadPlace<'a> {
    pub(super) stream: &'a StreamKey,
    pub(super) commit: Uuid,
    pub(super) index: u16,
    pub(super) commitment: &'a str,
}

/// The headers of a record's message.
pub(super) fn headers(prepared: &Prepared, stream: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let expected = prepared.expected.map_or(0, |head| head.position.0);
    headers.insert(MESSAGE_ID, message_id(&prepared.stream, prepared.commit));
    headers.insert(EXPECTED, expected.to_string());
    headers.insert(EXPECTED_STREAM, stream);
    headers.insert(HASH, hex(&prepared.hash));
    headers.insert(PREVIOUS, hex(&prepared.prev_hash));
    headers.insert(WAKE, wake_text(prepared.wake));
    headers
}

/// A commit id is the stream's own; the broker's window is over all streams.
fn message_id(stream: &StreamKey, commit: Uuid) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(stream.to_string().as_bytes());
    hasher.update(commit.as_bytes());
    hex(&hasher.finalize().as_bytes()[..16])
}

fn wake_text(wake: Wake) -> String {
    match wake {
        Wake::Now => "now".to_owned(),
        Wake::At(due) => due.0.to_string(),
        Wake::Parked => "parked".to_owned(),
        Wake::Done => "done".to_owned(),
    }
}

/// Reads a message as a record, with the wake that was committed with it.
pub(super) fn read(names: &Names, message: &StreamMessage) -> Result<(Record, Wake), LogError> {
    let at = format!("{} {}", names.log, message.sequence);
    let corrupt = |reason: &str| LogError::corrupt(&at, reason);
    let stream =
        names.stream_of(&message.subject).ok_or_else(|| corrupt("the subject is no stream"))?;
    let header = |name: &str| message.headers.get(name).map(|value| value.as_str());
    let hash_of = |name| {
        let text = header(name).and_then(unhex);
        text.ok_or_else(|| corrupt("the header of a hash is missing or not one"))
    };
    let (hash, prev_hash) = (hash_of(HASH)?, hash_of(PREVIOUS)?);
    let wake = header(WAKE).and_then(read_wake);
    let wake = wake.ok_or_else(|| corrupt("the header of the wake is missing or not one"))?;
    if chain(&prev_hash, &message.payload) != hash {
        return Err(corrupt("the hash is not that of the body"));
    }
    let body = Body::decode(&message.payload).map_err(|error| match error {
        LogError::Corrupt { reason, .. } => corrupt(&reason),
        other => other,
    })?;
    if body.tenant != stream.tenant || body.stream != stream.name() {
        return Err(corrupt("the body belongs to another stream"));
    }
    if body.events.is_empty() {
        return Err(corrupt("the body has no event"));
    }
    let millis = i64::try_from(message.time.unix_timestamp_nanos() / 1_000_000);
    let recorded_at = Timestamp(millis.map_err(|_| corrupt("the time is out of range"))?);
    let position = Position(message.sequence);
    Ok((Record { position, recorded_at, stream, prev_hash, hash, body }, wake))
}

fn read_wake(text: &str) -> Option<Wake> {
    Some(match text {
        "now" => Wake::Now,
        "parked" => Wake::Parked,
        "done" => Wake::Done,
        due => Wake::At(Timestamp(i64::from_str(due).ok()?)),
    })
}

fn unhex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// The canonical bytes, as a message's body.
pub(super) fn body(prepared: &Prepared) -> Bytes {
    Bytes::copy_from_slice(&prepared.canonical)
}

#[cfg(test)]
mod tests {
    use convergio_domain::decider::Wake;
    use convergio_domain::stream::StreamKey;
    use convergio_domain::time::Timestamp;
    use uuid::Uuid;

    use super::{Names, hex, read_wake, unhex, wake_text};

    #[test]
    fn subjects_name_streams_and_back() {
        let names = Names::new("CVG");
        let stream = StreamKey::request("acme".parse().unwrap(), Uuid::now_v7());
        assert_eq!(names.stream_of(&names.records(&stream)), Some(stream));
        for wrong in ["", "cvg.log.acme", "cvg.log.acme.run.x", "other.log.a.run.b"] {
            assert_eq!(names.stream_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hashes_and_wakes_come_back() {
        let hash = *blake3::hash(b"x").as_bytes();
        assert_eq!(unhex(&hex(&hash)), Some(hash));
        assert_eq!(unhex("00"), None);
        assert_eq!(unhex(&"z".repeat(64)), None);
        for wake in [Wake::Now, Wake::At(Timestamp(-5)), Wake::Parked, Wake::Done] {
            assert_eq!(read_wake(&wake_text(wake)), Some(wake));
        }
        assert_eq!(read_wake("later"), None);
    }
}
