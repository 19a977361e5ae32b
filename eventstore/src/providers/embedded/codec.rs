//! Encoding of bodies on disk: shaped (see `shape`), then zstd with a dictionary of the words that
//! all bodies repeat. The hash chain covers the canonical bytes, not these.

use std::cell::RefCell;
use std::sync::LazyLock;

use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};

use super::shape::{self, RowColumns};
use crate::commit::LogLimits;
use crate::error::LogError;

/// Raw-content dictionary of typical shaped bodies, the most common last. It is version 1 of the
/// codec and must never change; a better one needs a new codec number.
const DICTIONARY: &[u8] = include_bytes!("bodies.v1.dict");
const COMPRESSION_LEVEL: i32 = 5;

const PLAIN: u8 = 0;
const SHAPED_ZSTD: u8 = 1;

static ENCODER: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, COMPRESSION_LEVEL));
static DECODER: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> =
        RefCell::new(Compressor::with_prepared_dictionary(&ENCODER).ok().map(without_frame_extras));
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> =
        RefCell::new(Decompressor::with_prepared_dictionary(&DECODER).ok());
    /// Reusable buffer for one body's text.
    static TEXT: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(LogLimits::BODY_BYTES));
}

/// Omits from zstd frames what the log does not need: the hash chain is the checksum, and there is
/// one dictionary.
fn without_frame_extras(mut compressor: Compressor<'static>) -> Compressor<'static> {
    // If zstd refuses an option, frames are a few bytes longer and still readable.
    let _shorter = compressor.include_checksum(false);
    let _shorter = compressor.include_dictid(false);
    let _shorter = compressor.include_contentsize(false);
    compressor
}

/// Encodes a canonical body; the first byte names the codec.
pub(super) fn pack_body(canonical: &[u8], row: &RowColumns<'_>) -> Vec<u8> {
    let packed = shape::shape_body(canonical, row).and_then(|(ids, text)| {
        let text =
            COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut()?.compress(&text).ok());
        Some((ids, text?))
    });
    let mut body = Vec::with_capacity(canonical.len() / 2);
    match packed {
        // 4 is the maximum length of the prefix of the ids.
        Some((ids, text)) if ids.len() + text.len() + 4 < canonical.len() => {
            body.push(SHAPED_ZSTD);
            body.extend_from_slice(&shape::with_length_prefix(&ids));
            body.extend_from_slice(&text);
        }
        _ => {
            body.push(PLAIN);
            body.extend_from_slice(canonical);
        }
    }
    body
}

/// Decodes a body to its canonical bytes.
pub(super) fn unpack_body(body: &[u8], row: &RowColumns<'_>) -> Result<Vec<u8>, LogError> {
    let corrupt = |reason: &str| LogError::corrupt(&"a record", &reason);
    let (codec, bytes) = body.split_first().ok_or_else(|| corrupt("the body is empty"))?;
    match *codec {
        PLAIN => Ok(bytes.to_vec()),
        SHAPED_ZSTD => {
            let (ids, text) =
                shape::split_ids(bytes).ok_or_else(|| corrupt("the body is cut short"))?;
            TEXT.with_borrow_mut(|room| {
                room.clear();
                let unpacked = DECOMPRESSOR.with_borrow_mut(|decompressor| {
                    decompressor.as_mut()?.decompress_to_buffer(text, room).ok()
                });
                unpacked.ok_or_else(|| corrupt("the body cannot be unpacked"))?;
                shape::unshape_body(ids, room, row).ok_or_else(|| corrupt("the body lacks an id"))
            })
        }
        _ => Err(corrupt("the body's codec is not known: use a newer convergio")),
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::stream::{Seq, StreamKey};
    use convergio_domain::time::Timestamp;
    use proptest::prelude::{prop_assert_eq, proptest};
    use uuid::Uuid;

    use super::{PLAIN, RowColumns, SHAPED_ZSTD, pack_body, unpack_body};

    fn stream() -> StreamKey {
        StreamKey::for_run("acme".parse().unwrap(), convergio_domain::id::RunId(Uuid::from_u128(9)))
    }

    fn canonical_body(row: &RowColumns<'_>, middle: &str) -> Vec<u8> {
        let (stream, commit) = (row.stream.stream_name(), row.commit);
        let head = format!("{{\"actor\":\"a\",\"commit\":\"{commit}\",\"events\":[{middle}]");
        let tail = format!("\"stream\":\"{stream}\",\"tenant\":\"acme\",\"time\":{}", row.time.0);
        format!("{head},\"seq\":{},{tail}}}", row.seq).into_bytes()
    }

    #[test]
    fn ids_and_what_the_row_says_cost_their_bytes() {
        let stream = stream();
        let row =
            RowColumns { stream: &stream, commit: Uuid::max(), seq: Seq(7), time: Timestamp(5) };
        let ids = format!("\"{}\",\"{}\"", Uuid::from_u128(77), "0af9".repeat(16));
        let body = canonical_body(&row, &ids);
        let packed = pack_body(&body, &row);
        assert_eq!(packed[0], SHAPED_ZSTD);
        assert!(packed.len() < 16 + 32 + 60, "{}", packed.len());
        assert_eq!(unpack_body(&packed, &row).unwrap(), body);
        for cut in 0..packed.len() {
            assert_ne!(unpack_body(&packed[..cut], &row).ok(), Some(body.clone()));
        }
    }

    #[test]
    fn what_its_row_does_not_say_is_kept_as_it_is() {
        let stream = stream();
        let row =
            RowColumns { stream: &stream, commit: Uuid::max(), seq: Seq(7), time: Timestamp(5) };
        let body = canonical_body(&RowColumns { seq: Seq(8), ..row }, "1");
        let packed = pack_body(&body, &row);
        assert_eq!((packed[0], unpack_body(&packed, &row).unwrap()), (PLAIN, body));
    }

    proptest! {
        #[test]
        fn every_body_comes_back(text in ".*", id: u128, upper: bool, n: u64) {
            let stream = stream();
            let (seq, time) = (Seq(n >> 2), Timestamp(7));
            let row = RowColumns { stream: &stream, commit: Uuid::from_u128(id), seq, time };
            let mut id = Uuid::from_u128(id).to_string();
            if upper {
                id = id.to_uppercase();
            }
            let middle = serde_json::to_string(&(&text, id, text.len())).unwrap();
            let body = canonical_body(&row, &middle);
            prop_assert_eq!(unpack_body(&pack_body(&body, &row), &row).unwrap(), body);
        }

        #[test]
        fn no_bytes_end_the_process(bytes: Vec<u8>) {
            let stream = stream();
            let (seq, time) = (Seq(1), Timestamp(1));
            let row = RowColumns { stream: &stream, commit: Uuid::nil(), seq, time };
            let _read = unpack_body(&bytes, &row);
        }
    }
}
