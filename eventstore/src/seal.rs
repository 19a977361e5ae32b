//! Sealing payloads: XChaCha20-Poly1305 with a key per tenant.
//!
//! The salt is derived from the key, the payload's place and its plaintext (keyed BLAKE3, in the
//! manner of SIV, RFC 5297), the nonce from the key, the place and the commitment: sealing the same
//! commit again gives the same bytes, no nonce ever meets two plaintexts, and none need be stored.
//! The commitment in the chain is SHA-256(salt ‖ plaintext) with the
//! 32-byte salt; without the key the salt is secret, so a commitment tells nothing about a short
//! plaintext, and destroying the key or the sealed bytes leaves nothing to check guesses against.

use std::borrow::Cow;
use std::cell::RefCell;

use chacha20poly1305::aead::{Aead, KeyInit, Payload as Input};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use convergio_domain::id::TenantId;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::StreamKey;
use sha2::{Digest, Sha256};
use zstd::bulk::Compressor;

use crate::error::LogError;
use crate::reuse::Reuse;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> =
        RefCell::new(Compressor::new(COMPRESSION_LEVEL).ok());
}

/// Fast: payloads are many and small.
const COMPRESSION_LEVEL: i32 = 1;
const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// A tenant's data key.
#[derive(Clone)]
pub struct TenantKey(pub [u8; 32]);

impl std::fmt::Debug for TenantKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TenantKey(…)")
    }
}

/// Where tenants' data keys come from.
pub trait PayloadKeys: Send + Sync + 'static {
    /// The key of a tenant.
    ///
    /// # Errors
    /// The key cannot be had.
    fn key(&self, tenant: &TenantId) -> Result<TenantKey, LogError>;
}

/// One master key; tenants' keys are derived from it.
#[derive(Clone)]
pub(crate) struct MasterKey(pub(crate) [u8; 32]);

impl PayloadKeys for MasterKey {
    fn key(&self, tenant: &TenantId) -> Result<TenantKey, LogError> {
        let mut hasher = blake3::Hasher::new_derive_key("convergio payload tenant key v1");
        hasher.update(&self.0);
        hasher.update(tenant.as_str().as_bytes());
        Ok(TenantKey(*hasher.finalize().as_bytes()))
    }
}

/// A sealed payload, and what the chain says of it.
pub(crate) struct Sealed {
    /// Ciphertext with tag.
    pub(crate) bytes: Vec<u8>,
    pub(crate) commitment: String,
}

fn place(stream: &StreamKey, reference: PayloadRef) -> String {
    format!("{stream}#{reference}")
}

/// Keyed BLAKE3 of what is used for one purpose at one place.
fn derive(key: &TenantKey, purpose: u8, place: &str, bytes: &[u8]) -> blake3::OutputReader {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(place.as_bytes());
    hasher.update(&[0, purpose]);
    hasher.update(bytes);
    hasher.finalize_xof()
}

fn commitment(key: &TenantKey, place: &str, plaintext: &[u8]) -> String {
    let mut salt = [0_u8; SALT_BYTES];
    derive(key, 1, place, plaintext).fill(&mut salt);
    hex(&Sha256::new().chain_update(salt).chain_update(plaintext).finalize())
}

fn nonce(key: &TenantKey, place: &str, commitment: &str) -> XNonce {
    let mut nonce = [0_u8; NONCE_BYTES];
    derive(key, 2, place, commitment.as_bytes()).fill(&mut nonce);
    nonce.into()
}

/// Seals a plaintext for its place, without what is stored elsewhere already. It is compressed
/// first when that makes it smaller; the last byte of what is encrypted says so.
pub(crate) fn seal(
    key: &TenantKey,
    stream: &StreamKey,
    reference: PayloadRef,
    plaintext: &[u8],
    reuse: Option<&Reuse>,
) -> Result<Sealed, LogError> {
    let place = place(stream, reference);
    let own = match reuse {
        Some(reuse) => reuse
            .own(plaintext)
            .map(Cow::Owned)
            .ok_or_else(|| LogError::corrupt(&place, "its parts do not fit"))?,
        None => Cow::Borrowed(plaintext),
    };
    let commitment = commitment(key, &place, plaintext);
    let nonce = nonce(key, &place, &commitment);
    let mut packed = pack(&own).unwrap_or_else(|| own.to_vec());
    packed.push(u8::from(packed.len() < own.len()));
    let input = Input { msg: &packed, aad: place.as_bytes() };
    let sealed = cipher(key).encrypt(&nonce, input);
    let bytes = sealed.map_err(|_| LogError::Unavailable("sealing failed".into()))?;
    Ok(Sealed { bytes, commitment })
}

/// The plaintext compressed, if that makes it smaller.
fn pack(plaintext: &[u8]) -> Option<Vec<u8>> {
    let packed =
        COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut()?.compress(plaintext).ok())?;
    (packed.len() < plaintext.len()).then_some(packed)
}

/// Opens what [`seal`] made: all of a plaintext that is not stored elsewhere.
pub(crate) fn open(
    key: &TenantKey,
    stream: &StreamKey,
    reference: PayloadRef,
    sealed: &[u8],
    commitment: &str,
    plaintext_bytes: u64,
) -> Result<Vec<u8>, LogError> {
    let place = place(stream, reference);
    let corrupt = |reason: &str| LogError::corrupt(&place, reason);
    let input = Input { msg: sealed, aad: place.as_bytes() };
    let opened = cipher(key).decrypt(&nonce(key, &place, commitment), input);
    let mut packed =
        opened.map_err(|_| corrupt("the payload was changed, or its key is another"))?;
    if packed.pop() != Some(1) {
        return Ok(packed);
    }
    let limit = usize::try_from(plaintext_bytes).unwrap_or(usize::MAX);
    zstd::bulk::decompress(&packed, limit).map_err(|_| corrupt("the payload cannot be unpacked"))
}

/// Checks a whole plaintext against the chain's commitment.
pub(crate) fn check(
    key: &TenantKey,
    stream: &StreamKey,
    reference: PayloadRef,
    plaintext: &[u8],
    commitment: &str,
) -> Result<(), LogError> {
    let place = place(stream, reference);
    if self::commitment(key, &place, plaintext) == commitment {
        return Ok(());
    }
    Err(LogError::corrupt(&place, "the payload is not the one that the chain commits to"))
}

fn cipher(key: &TenantKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&key.0).into())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
