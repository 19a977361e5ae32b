//! The form of a run file's lines.

use convergio_domain::id::{GraphId, GraphVersion, RunId, TenantId};
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A line, tagged by its kind.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RunFileLine<'a> {
    Run(RunFileHeader),
    Ancestor(AncestorLine),
    Graph(#[serde(borrow)] GraphLine<'a>),
    Record(#[serde(borrow)] RecordLine<'a>),
    Payload(PayloadLine),
    Signature(SignatureLine),
}

/// First line: the run, and where the file ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFileHeader {
    /// Format version of the file.
    pub format: u32,
    /// Tenant that owns the run.
    pub tenant: TenantId,
    /// Id of the run.
    pub run: RunId,
    /// Sequence number of the run's last event.
    pub seq: Seq,
    /// Hash of the run's last record, as hexadecimal digits.
    pub hash: String,
    /// True if the file holds the plaintexts of all payloads that were not erased.
    pub payloads: bool,
}

/// An ancestor of a fork: its records up to an event follow this line.
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
    /// The plaintext, if it is UTF-8 without control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    /// Any other plaintext, in base 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base64: Option<String>,
}

/// Last line: an Ed25519 signature of all lines before it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignatureLine {
    /// Public key as hexadecimal digits.
    pub(super) key: String,
    pub(super) signature: String,
}

/// Decodes exactly 2·N lower-case hexadecimal digits.
pub(super) fn decode_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    let pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 2 * N {
        return None;
    }
    let bytes: Option<Vec<u8>> =
        pairs.map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()).collect();
    bytes?.try_into().ok()
}
