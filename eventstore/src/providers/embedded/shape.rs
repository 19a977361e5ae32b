//! Shaping of bodies before compression: values that the row's columns hold are omitted, and ids
//! and hashes, which do not compress, are moved out of the text as bytes.
//!
//! ```text
//! ids  = 16 bytes for each UUID, 32 for each hash, 8 for each fingerprint, in order
//! text = the canonical body without commit, seq, stream, tenant and time;
//!        a UUID in it is the byte 01, 64 hexadecimal digits are the byte 02, 16 the byte 03
//! ```
//! Canonical JSON holds no control characters, so these bytes mean nothing else.

use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use uuid::Uuid;

const UUID_MARK: u8 = 1;
const HASH_MARK: u8 = 2;
const FINGERPRINT_MARK: u8 = 3;
const UUID_DIGITS: usize = 36;
const HASH_DIGITS: usize = 64;
const FINGERPRINT_DIGITS: usize = 16;

/// Columns of a record's row that are omitted from its body.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowColumns<'a> {
    pub(super) stream: &'a StreamKey,
    pub(super) commit: Uuid,
    pub(super) seq: Seq,
    pub(super) time: Timestamp,
}

impl RowColumns<'_> {
    fn commit_field(&self) -> String {
        format!(",\"commit\":\"{}\"", self.commit)
    }

    fn body_suffix(&self) -> String {
        let RowColumns { stream, seq, time, .. } = self;
        let (name, tenant) = (stream.stream_name(), &stream.tenant);
        format!(
            ",\"seq\":{seq},\"stream\":\"{name}\",\"tenant\":\"{tenant}\",\"time\":{}}}",
            time.0
        )
    }
}

/// Splits a canonical body into ids and text; `None` if the body does not match its columns.
pub(super) fn shape_body(canonical: &[u8], row: &RowColumns<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    // Members are sorted by name: a body begins with actor and commit, and ends with seq, stream,
    // tenant and time.
    let body = canonical.strip_suffix(row.body_suffix().as_bytes())?;
    let actor_end = body.iter().position(|byte| *byte == b',')?;
    let (actor, rest) = body.split_at(actor_end);
    let rest = rest.strip_prefix(row.commit_field().as_bytes())?;
    let (mut ids, mut text) = (Vec::new(), Vec::with_capacity(canonical.len()));
    text.extend_from_slice(actor);
    // Splitting at every quote, also an escaped one, loses nothing: the parts are joined by quotes.
    let mut quoted = rest.split(|byte| *byte == b'"');
    text.extend_from_slice(quoted.next()?);
    for part in quoted {
        text.push(b'"');
        match encode_id(part) {
            Some((mark, bytes)) => {
                text.push(mark);
                ids.extend_from_slice(&bytes);
            }
            None => text.extend_from_slice(part),
        }
    }
    Some((ids, text))
}

/// Restores the canonical body; `None` if the input was not made by [`shape_body`].
pub(super) fn unshape_body(ids: &[u8], text: &[u8], row: &RowColumns<'_>) -> Option<Vec<u8>> {
    let mut ids = ids;
    let actor_end = text.iter().position(|byte| *byte == b',')?;
    let mut canonical = Vec::with_capacity(text.len() * 2);
    canonical.extend_from_slice(&text[..actor_end]);
    canonical.extend_from_slice(row.commit_field().as_bytes());
    let mut rest = &text[actor_end..];
    while let Some(at) = rest.iter().position(|byte| (UUID_MARK..=FINGERPRINT_MARK).contains(byte))
    {
        canonical.extend_from_slice(&rest[..at]);
        match rest[at] {
            UUID_MARK => {
                let (id, after) = ids.split_first_chunk::<16>()?;
                ids = after;
                let mut digits = [0; UUID_DIGITS];
                Uuid::from_bytes(*id).hyphenated().encode_lower(&mut digits);
                canonical.extend_from_slice(&digits);
            }
            mark => {
                let bytes =
                    if mark == HASH_MARK { HASH_DIGITS / 2 } else { FINGERPRINT_DIGITS / 2 };
                let (hash, after) = ids.split_at_checked(bytes)?;
                ids = after;
                canonical.extend_from_slice(crate::seal::to_hex(hash).as_bytes());
            }
        }
        rest = &rest[at + 1..];
    }
    canonical.extend_from_slice(rest);
    canonical.extend_from_slice(row.body_suffix().as_bytes());
    ids.is_empty().then_some(canonical)
}

/// Splits an encoded body into ids and compressed text, by the length prefix of the ids.
pub(super) fn split_ids(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = decode_varint(bytes)?;
    rest.split_at_checked(length)
}

/// Returns the ids with their length before them.
pub(super) fn with_length_prefix(ids: &[u8]) -> Vec<u8> {
    let mut bytes = encode_varint(ids.len());
    bytes.extend_from_slice(ids);
    bytes
}

/// Encodes a quoted string as bytes, if it is an id in its canonical form. An id in another form
/// must stay text, or it would not be restored byte for byte.
fn encode_id(part: &[u8]) -> Option<(u8, Vec<u8>)> {
    match part.len() {
        UUID_DIGITS => {
            let text = std::str::from_utf8(part).ok()?;
            let id = Uuid::try_parse(text).ok()?;
            (id.to_string() == text).then(|| (UUID_MARK, id.as_bytes().to_vec()))
        }
        HASH_DIGITS => decode_hex(part).map(|bytes| (HASH_MARK, bytes)),
        FINGERPRINT_DIGITS => decode_hex(part).map(|bytes| (FINGERPRINT_MARK, bytes)),
        _ => None,
    }
}

/// Decodes lower-case hexadecimal digits.
fn decode_hex(part: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    part.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn encode_varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn decode_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut number = 0_usize;
    // Four bytes of seven bits hold any length below a body's limit of 512 KiB.
    for (index, byte) in bytes.iter().enumerate().take(4) {
        number |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[index + 1..]));
        }
    }
    None
}
