//! Compression of plaintexts before encryption.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::commit::LogLimits;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> =
        RefCell::new(Compressor::new(COMPRESSION_LEVEL).ok());
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> =
        RefCell::new(Decompressor::new().ok());
}

/// A fast level: payloads are many and small.
const COMPRESSION_LEVEL: i32 = 1;
/// Minimum bytes of a plaintext that is compressed; shorter ones hardly shrink.
const MINIMUM_COMPRESSED_BYTES: usize = 96;

/// Compresses a plaintext; `None` if that does not make it smaller.
pub(super) fn compress_plaintext(plaintext: &[u8]) -> Option<Vec<u8>> {
    if plaintext.len() < MINIMUM_COMPRESSED_BYTES {
        return None;
    }
    let packed =
        COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut()?.compress(plaintext).ok())?;
    (packed.len() < plaintext.len()).then_some(packed)
}

/// Decompresses a plaintext of at most `plaintext_bytes`. That number comes from a record and is
/// untrusted, so it is capped as well.
pub(super) fn decompress_plaintext(packed: &[u8], plaintext_bytes: u64) -> Option<Vec<u8>> {
    let limit =
        usize::try_from(plaintext_bytes).unwrap_or(usize::MAX).min(LogLimits::PAYLOADS_BYTES);
    DECOMPRESSOR
        .with_borrow_mut(|decompressor| decompressor.as_mut()?.decompress(packed, limit).ok())
}
