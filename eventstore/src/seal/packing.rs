//! Plaintexts made smaller before they are encrypted.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::commit::Limits;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> =
        RefCell::new(Compressor::new(COMPRESSION_LEVEL).ok());
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> =
        RefCell::new(Decompressor::new().ok());
}

/// Fast: payloads are many and small.
const COMPRESSION_LEVEL: i32 = 1;
/// Shorter ones hardly become smaller.
const LEAST_PACKED: usize = 96;

/// The plaintext compressed, if that makes it smaller.
pub(super) fn pack(plaintext: &[u8]) -> Option<Vec<u8>> {
    if plaintext.len() < LEAST_PACKED {
        return None;
    }
    let packed =
        COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut()?.compress(plaintext).ok())?;
    (packed.len() < plaintext.len()).then_some(packed)
}

/// What [`pack`] made, if it has not more than `plaintext_bytes`, a record's word for it.
pub(super) fn unpack(packed: &[u8], plaintext_bytes: u64) -> Option<Vec<u8>> {
    let limit = usize::try_from(plaintext_bytes).unwrap_or(usize::MAX).min(Limits::PAYLOADS_BYTES);
    DECOMPRESSOR
        .with_borrow_mut(|decompressor| decompressor.as_mut()?.decompress(packed, limit).ok())
}
