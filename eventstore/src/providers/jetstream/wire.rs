//! The form of records in JetStream: one message per record. Its subject is the stream; its body
//! holds the fields that are not hashed, and then the canonical bytes.
//!
//! | bytes | |
//! |---|---|
//! | 0 | the form: 2 |
//! | 1 | the wake: 0 done, 1 parked, 2 now, 3 at a time |
//! | 2..10 | that time in milliseconds, big endian; 0 for the other wakes |
//! | 10..42 | the record's hash |
//! | 42..74 | the hash of the record before it |
//! | 74.. | the canonical body |
//!
//! In form 1 the body is the canonical one alone, which begins with `{`, and the rest is in
//! headers. Both forms are read, form 2 is written: servers search all headers of a message again
//! and again, and digits take twice the room.

use std::str::FromStr;

use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use convergio_domain::decider::Wake;
use convergio_domain::id::TenantId;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use uuid::Uuid;

use crate::error::LogError;
use crate::prepare::PreparedCommit;
use crate::record::{Hash, Position, Record, RecordBody, chain_hash};

/// Headers of messages of form 1.
const HASH_HEADER: &str = "Cvg-Hash";
const PREVIOUS_HASH_HEADER: &str = "Cvg-Prev";
const WAKE_HEADER: &str = "Cvg-Wake";
/// First byte of a message of form 2, and the offset of its canonical body.
const FORM_2: u8 = 2;
const CANONICAL_OFFSET: usize = 74;

/// Names of a log's JetStream streams and subjects.
#[derive(Debug, Clone)]
pub(super) struct SubjectNames {
    /// Stream of records.
    pub(super) log: String,
    /// Stream of sealed payloads.
    pub(super) payloads: String,
    /// Stream of derived data: wake index snapshots, the acknowledgement marker, the slot lease.
    pub(super) derived: String,
    prefix: String,
}

impl SubjectNames {
    pub(super) fn new(name: &str) -> Self {
        Self {
            log: format!("{name}_LOG"),
            payloads: format!("{name}_PAYLOAD"),
            derived: format!("{name}_DERIVED"),
            prefix: name.to_ascii_lowercase(),
        }
    }

    /// Returns the filter that matches every record.
    pub(super) fn all_records(&self) -> String {
        format!("{}.log.>", self.prefix)
    }

    /// Returns the filter that matches every payload.
    pub(super) fn all_payloads(&self) -> String {
        format!("{}.payload.>", self.prefix)
    }

    /// Returns the filter that matches all derived data.
    pub(super) fn all_derived(&self) -> String {
        format!("{}.derived.>", self.prefix)
    }

    /// Returns the subject of a stream, on which the broker compares the expected version.
    pub(super) fn record_subject(&self, stream: &StreamKey) -> String {
        let StreamKey { tenant, kind, id } = stream;
        format!("{}.log.{tenant}.{}.{id}", self.prefix, kind.as_str())
    }

    /// Returns the subject of a piece of a payload. It holds the commit's id and the commitment, so
    /// that rivals never overwrite each other.
    pub(super) fn payload_subject(&self, place: &PayloadPlace<'_>, piece: usize) -> String {
        let PayloadPlace { stream, commit, index, commitment } = place;
        let StreamKey { tenant, kind, id } = stream;
        let tag = commitment.get(..16).unwrap_or(commitment);
        let kind = kind.as_str();
        let prefix = &self.prefix;
        format!("{prefix}.payload.{tenant}.{kind}.{id}.{commit}.{index}.{tag}.{piece}")
    }

    /// Returns the subject of derived data.
    pub(super) fn derived_subject(&self, what: &str) -> String {
        format!("{}.derived.{what}", self.prefix)
    }

    fn stream_from_subject(&self, subject: &str) -> Option<StreamKey> {
        let rest = subject.strip_prefix(self.prefix.as_str())?.strip_prefix(".log.")?;
        let (tenant, name) = rest.split_once('.')?;
        let tenant: TenantId = tenant.parse().ok()?;
        StreamKey::parse_name(tenant, &name.replacen('.', "/", 1)).ok()
    }
}

/// Identifies a payload of a commit.
pub(super) struct PayloadPlace<'a> {
    pub(super) stream: &'a StreamKey,
    pub(super) commit: Uuid,
    pub(super) index: u16,
    pub(super) commitment: &'a str,
}

/// The fields of a message: those that are not hashed, and the canonical body.
struct MessageParts {
    wake: Wake,
    hash: Hash,
    prev_hash: Hash,
    canonical: Bytes,
}

/// Encodes a commit as the body of a message.
pub(super) fn encode_body(prepared: &PreparedCommit) -> Bytes {
    let (kind, due) = match prepared.wake {
        Wake::Done => (0, 0),
        Wake::Parked => (1, 0),
        Wake::Now => (2, 0),
        Wake::At(due) => (3, due.0),
    };
    let mut body = Vec::with_capacity(CANONICAL_OFFSET + prepared.canonical.len());
    body.extend_from_slice(&[FORM_2, kind]);
    body.extend_from_slice(&due.to_be_bytes());
    body.extend_from_slice(&prepared.hash);
    body.extend_from_slice(&prepared.prev_hash);
    body.extend_from_slice(&prepared.canonical);
    body.into()
}

/// Returns the canonical bytes of a message that was decoded successfully.
pub(super) fn canonical_body(message: &StreamMessage) -> Bytes {
    match message.payload.first() {
        Some(&FORM_2) => message.payload.slice(CANONICAL_OFFSET.min(message.payload.len())..),
        _ => message.payload.clone(),
    }
}

/// Splits a message of either form; the error says what is wrong with it.
fn split_message(message: &StreamMessage) -> Result<MessageParts, &'static str> {
    match message.payload.first() {
        Some(&FORM_2) => {
            read_form_2(&message.payload).ok_or("what stands before the body is not right")
        }
        Some(b'{') => read_form_1(message),
        _ => Err("the form is not known"),
    }
}

fn read_form_2(payload: &Bytes) -> Option<MessageParts> {
    let (head, _) = payload.split_first_chunk::<CANONICAL_OFFSET>()?;
    let due = i64::from_be_bytes(head[2..10].try_into().ok()?);
    let wake = match (head[1], due) {
        (0, 0) => Wake::Done,
        (1, 0) => Wake::Parked,
        (2, 0) => Wake::Now,
        (3, due) => Wake::At(Timestamp(due)),
        _ => return None,
    };
    let (hash, prev_hash) = (head[10..42].try_into().ok()?, head[42..].try_into().ok()?);
    Some(MessageParts { wake, hash, prev_hash, canonical: payload.slice(CANONICAL_OFFSET..) })
}

fn read_form_1(message: &StreamMessage) -> Result<MessageParts, &'static str> {
    let header = |name: &str| message.headers.get(name).map(|value| value.as_str());
    let hash_of = |name| {
        let hash = header(name).and_then(parse_hash);
        hash.ok_or("the header of a hash is missing or not one")
    };
    let wake = header(WAKE_HEADER).and_then(read_wake);
    let wake = wake.ok_or("the header of the wake is missing or not one")?;
    let (hash, prev_hash) = (hash_of(HASH_HEADER)?, hash_of(PREVIOUS_HASH_HEADER)?);
    Ok(MessageParts { wake, hash, prev_hash, canonical: message.payload.clone() })
}

/// Decodes a message to a record, with the wake that was committed with it. The hash and the
/// subject are checked.
pub(super) fn decode_message(
    names: &SubjectNames,
    message: &StreamMessage,
) -> Result<(Record, Wake), LogError> {
    let at = format!("{} {}", names.log, message.sequence);
    let corrupt = |reason: &str| LogError::corrupt(&at, reason);
    let stream = names
        .stream_from_subject(&message.subject)
        .ok_or_else(|| corrupt("the subject is no stream"))?;
    let MessageParts { wake, hash, prev_hash, canonical } =
        split_message(message).map_err(corrupt)?;
    if chain_hash(&prev_hash, &canonical) != hash {
        return Err(corrupt("the hash is not that of the body"));
    }
    let body = RecordBody::from_canonical_json(&canonical).map_err(|error| match error {
        LogError::Corrupt { reason, .. } => corrupt(&reason),
        other => other,
    })?;
    // A valid record under the subject of another stream has been moved.
    if body.tenant != stream.tenant || body.stream != stream.stream_name() {
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

fn parse_hash(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use async_nats::datetime::from_nanos;
    use async_nats::jetstream::message::StreamMessage;
    use convergio_domain::decider::Wake;
    use convergio_domain::stream::StreamKey;
    use convergio_domain::time::Timestamp;
    use uuid::Uuid;

    use super::{
        CANONICAL_OFFSET, SubjectNames, canonical_body, decode_message, encode_body, parse_hash,
        read_wake,
    };
    use crate::error::LogError;
    use crate::prepare::PreparedCommit;
    use crate::seal::to_hex;

    const SUBJECT: &str = "cvg.log.acme.request.00000000-0000-0000-0000-000000000007";
    /// The second record of a stream, as every version of this program must read it.
    const BODY: &str = concat!(
        r#"{"actor":"alice","commit":"01976a00-0000-7000-8000-000000000001","#,
        r#""events":[{"data":{"request_hash":"x"},"type":"request.accepted.v1"}],"seq":2,"#,
        r#""stream":"request/00000000-0000-0000-0000-000000000007","tenant":"acme","time":5}"#,
    );
    const BEFORE: &str = "0101010101010101010101010101010101010101010101010101010101010101";
    const HASH: &str = "7a75ef6d413ae0dd54574f2240c09397a5f3fd5b57f658eae7dcffcee6c76725";
    /// Start of the bytes before the body in form 2: a wake at 500 ms. The two hashes follow.
    const HEAD: &str = "020300000000000001f4";

    #[test]
    fn subjects_name_streams_and_back() {
        let names = SubjectNames::new("CVG");
        let stream = StreamKey::for_request("acme".parse().unwrap(), Uuid::now_v7());
        assert_eq!(names.stream_from_subject(&names.record_subject(&stream)), Some(stream));
        for wrong in ["", "cvg.log.acme", "cvg.log.acme.run.x", "other.log.a.run.b"] {
            assert_eq!(names.stream_from_subject(wrong), None, "{wrong}");
        }
    }

    fn message(headers: &[(&str, &str)], payload: Vec<u8>) -> StreamMessage {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        let time = from_nanos(9_000_000_000).unwrap();
        let (subject, payload) = (SUBJECT.into(), payload.into());
        StreamMessage { subject, sequence: 12, headers: map, payload, time }
    }

    fn form_1() -> StreamMessage {
        let headers = [("Cvg-Hash", HASH), ("Cvg-Prev", BEFORE), ("Cvg-Wake", "500")];
        message(&headers, BODY.into())
    }

    fn form_2() -> StreamMessage {
        let head = [HEAD, HASH, BEFORE].concat();
        let digits = head.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
        let head = digits.map(|two| u8::from_str_radix(two, 16).unwrap());
        message(&[], head.chain(BODY.bytes()).collect())
    }

    fn corrupt(message: &StreamMessage) -> String {
        match decode_message(&SubjectNames::new("CVG"), message) {
            Err(LogError::Corrupt { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_forms_are_the_same_record() {
        let names = SubjectNames::new("CVG");
        let (old, new) = (form_1(), form_2());
        let (record, wake) = decode_message(&names, &new).unwrap();
        assert_eq!(decode_message(&names, &old).unwrap(), (record.clone(), wake));
        assert_eq!((canonical_body(&old), canonical_body(&new)), (BODY.into(), BODY.into()));
        assert_eq!(wake, Wake::At(Timestamp(500)));
        assert_eq!((record.position.0, record.recorded_at), (12, Timestamp(9000)));
        assert_eq!((to_hex(&record.hash), to_hex(&record.prev_hash)), (HASH.into(), BEFORE.into()));
        assert_eq!(record.body.to_canonical_json().unwrap(), BODY.as_bytes());
    }

    #[test]
    fn form_2_is_written() {
        let (record, _) = decode_message(&SubjectNames::new("CVG"), &form_1()).unwrap();
        let mut prepared = PreparedCommit {
            stream: record.stream,
            commit: record.body.commit,
            expected: None,
            prev_hash: record.prev_hash,
            hash: record.hash,
            body: record.body,
            canonical: BODY.into(),
            sealed: Vec::new(),
            wake: Wake::At(Timestamp(500)),
            recent_payloads: Vec::new(),
            is_continued: false,
        };
        assert_eq!(encode_body(&prepared), form_2().payload);
        for wake in [Wake::Now, Wake::At(Timestamp(-5)), Wake::Parked, Wake::Done] {
            prepared.wake = wake;
            let written = message(&[], encode_body(&prepared).into());
            assert_eq!(decode_message(&SubjectNames::new("CVG"), &written).unwrap().1, wake);
        }
    }

    #[test]
    fn what_is_not_a_record_is_told() {
        let changed = |at: usize, byte: u8| {
            let mut payload = form_2().payload.to_vec();
            payload[at] = byte;
            corrupt(&message(&[], payload))
        };
        assert_eq!(changed(0, 3), "the form is not known");
        for (at, byte) in [(1, 4), (1, 0)] {
            assert_eq!(changed(at, byte), "what stands before the body is not right");
        }
        for at in [10, 42, CANONICAL_OFFSET, CANONICAL_OFFSET + 9] {
            assert_eq!(changed(at, b'~'), "the hash is not that of the body");
        }
        for length in 0..CANONICAL_OFFSET {
            let cut = corrupt(&message(&[], form_2().payload[..length].to_vec()));
            assert!(cut == "the form is not known" || cut.contains("before the body"), "{cut}");
        }
        let bare = corrupt(&message(&[], BODY.into()));
        assert_eq!(bare, "the header of the wake is missing or not one");
        let mut other = form_1();
        other.headers.insert("Cvg-Hash", BEFORE);
        assert_eq!(corrupt(&other), "the hash is not that of the body");
        other.headers.insert("Cvg-Hash", "00");
        assert_eq!(corrupt(&other), "the header of a hash is missing or not one");
    }

    #[test]
    fn headers_of_form_1_are_read() {
        let hash = *blake3::hash(b"x").as_bytes();
        assert_eq!(parse_hash(&to_hex(&hash)), Some(hash));
        assert_eq!(parse_hash(&"z".repeat(64)), None);
        let wakes = ["now", "-5", "parked", "done", "later"].map(read_wake);
        let at = Some(Wake::At(Timestamp(-5)));
        assert_eq!(wakes, [Some(Wake::Now), at, Some(Wake::Parked), Some(Wake::Done), None]);
    }
}
