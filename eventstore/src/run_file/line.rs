//! The lines of a run's file, as they are written.

use convergio_domain::id::{GraphId, GraphVersion, RunId, TenantId};
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line<'a> {
    Run(Header),
    Ancestor(AncestorLine),
    Graph(#[serde(borrow)] GraphLine<'a>),
    Record(#[serde(borrow)] RecordLine<'a>),
    Payload(PayloadLine),
    Signature(SignatureLine),
}

/// Which run, and where the file ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The form of the file.
    pub format: u32,
    /// The owner.
    pub tenant: TenantId,
    /// The run.
    pub run: RunId,
    /// The number of its last event.
    pub seq: Seq,
    /// The hash of its last record, as hexadecimal digits.
    pub hash: String,
    /// Whether the payloads' plaintexts are in the file, but those that were erased.
    pub payloads: bool,
}

/// A run that the history begins in: its records up to an event stand after this line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AncestorLine {
    pub(super) run: RunId,
    pub(super) seq: Seq,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GraphLine<'a> {
    pub(super) graph: GraphId,
    pub(super) version: GraphVersion,
    #[serde(borrow)]
    pub(super) manifest: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordLine<'a> {
    pub(super) prev_hash: String,
    pub(super) hash: String,
    pub(super) recorded_at: Timestamp,
    #[serde(borrow)]
    pub(super) body: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PayloadLine {
    #[serde(rename = "ref")]
    pub(super) reference: PayloadRef,
    pub(super) salt: String,
    /// A plaintext that is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    /// Any other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base64: Option<String>,
}

/// Who vouches for all lines before this one, the last.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignatureLine {
    /// The public key.
    pub(super) key: String,
    pub(super) signature: String,
}

/// Bytes from exactly so many hexadecimal digits.
pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    let pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 2 * N {
        return None;
    }
    let bytes: Option<Vec<u8>> =
        pairs.map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()).collect();
    bytes?.try_into().ok()
}
