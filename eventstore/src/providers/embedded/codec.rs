//! How bodies lie on disk: zstd with a dictionary, so that the words which every body repeats cost
//! nothing. The chain is over the canonical bytes, not over these.

use std::cell::RefCell;
use std::sync::LazyLock;

use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};

use crate::commit::Limits;
use crate::error::LogError;

/// Typical bodies, as raw content: version 1 of the codec for ever. A better one is a new version.
const DICTIONARY: &[u8] = include_bytes!("bodies.v1.dict");
const LEVEL: i32 = 3;

const PLAIN: u8 = 0;
const ZSTD_V1: u8 = 1;

static ENCODER: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, LEVEL));
static DECODER: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> =
        RefCell::new(Compressor::with_prepared_dictionary(&ENCODER).ok().map(bare));
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> =
        RefCell::new(Decompressor::with_prepared_dictionary(&DECODER).ok());
}

/// Frames without what this log knows better: the chain is the checksum, and there is one
/// dictionary.
fn bare(mut compressor: Compressor<'static>) -> Compressor<'static> {
    // If an option is refused, the frames are a few bytes longer, and as readable.
    let _shorter = compressor.include_checksum(false);
    let _shorter = compressor.include_dictid(false);
    compressor
}

/// Packs canonical bytes; the first byte names the codec.
pub(super) fn pack(canonical: &[u8]) -> Vec<u8> {
    let packed = COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.as_mut().and_then(|compressor| compressor.compress(canonical).ok())
    });
    let (codec, bytes) = match &packed {
        Some(packed) if packed.len() < canonical.len() => (ZSTD_V1, packed.as_slice()),
        _ => (PLAIN, canonical),
    };
    let mut body = Vec::with_capacity(bytes.len() + 1);
    body.push(codec);
    body.extend_from_slice(bytes);
    body
}

/// Gives the canonical bytes back.
pub(super) fn unpack(body: &[u8]) -> Result<Vec<u8>, LogError> {
    let corrupt = |reason: &str| LogError::corrupt(&"a record", &reason);
    let (codec, bytes) = body.split_first().ok_or_else(|| corrupt("the body is empty"))?;
    match *codec {
        PLAIN => Ok(bytes.to_vec()),
        ZSTD_V1 => DECOMPRESSOR.with_borrow_mut(|decompressor| {
            let decompressor = decompressor.as_mut().ok_or_else(|| corrupt("no decompressor"))?;
            let unpacked = decompressor.decompress(bytes, Limits::BODY_BYTES);
            unpacked.map_err(|_| corrupt("the body cannot be unpacked"))
        }),
        _ => Err(corrupt("the body's codec is not known: use a newer convergio")),
    }
}
