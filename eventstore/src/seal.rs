//! Sealing payloads: XChaCha20-Poly1305 with a key per tenant.
//!
//! The salt is derived from the key, the payload's place and its plaintext (keyed BLAKE3, in the
//! manner of SIV, RFC 5297), the nonce from the key, the place and the commitment: sealing the same
//! commit again gives the same bytes, no nonce ever meets two plaintexts, and none need be stored.
//! The commitment in the chain is SHA-256(salt ‖ plaintext) with the
//! 32-byte salt; without the key the salt is secret, so a commitment tells nothing about a short
//! plaintext, and destroying the key or the sealed bytes leaves nothing to check guesses against.
//! A payload that came with its record from another log keeps the commitment that was made there:
//! its salt cannot be derived here and is sealed with it.

use std::borrow::Cow;
use std::cell::RefCell;

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, Payload as Input};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use convergio_domain::id::TenantId;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::StreamKey;
use sha2::{Digest, Sha256};
use zeroize::Zeroize;
use zstd::bulk::{Compressor, Decompressor};

use crate::error::LogError;
use crate::record::PayloadMeta;
use crate::reuse::Reuse;

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
const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// A tenant's data key.
#[derive(Clone)]
pub struct TenantKey(pub [u8; 32]);

impl Drop for TenantKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

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

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PayloadKeys for MasterKey {
    fn key(&self, tenant: &TenantId) -> Result<TenantKey, LogError> {
        let mut hasher = blake3::Hasher::new_derive_key("convergio payload tenant key v1");
        hasher.update(&self.0);
        hasher.update(tenant.as_str().as_bytes());
        Ok(TenantKey(*hasher.finalize().as_bytes()))
    }
}

/// The plaintext of a payload and the salt of its commitment: what shows to anybody that this is
/// what the chain commits to.
#[derive(Clone, PartialEq, Eq)]
pub struct Opening {
    /// The plaintext.
    pub bytes: Bytes,
    /// The salt.
    pub salt: [u8; SALT_BYTES],
}

impl Opening {
    /// Whether a commitment (hexadecimal digits) is one to this.
    pub fn opens(&self, commitment: &str) -> bool {
        commit(&self.salt, &self.bytes) == commitment
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opening({} bytes)", self.bytes.len())
    }
}

/// What of a payload is stored in its own place.
pub(crate) struct Own {
    /// Of the plaintext, what is not stored elsewhere.
    pub(crate) bytes: Vec<u8>,
    /// The salt, if it is not ours.
    salt: Option<[u8; SALT_BYTES]>,
}

/// A sealed payload, and what the chain says of it.
pub(crate) struct Sealed {
    /// Ciphertext with tag.
    pub(crate) bytes: Vec<u8>,
    pub(crate) commitment: String,
    pub(crate) salt: [u8; SALT_BYTES],
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

fn salt(key: &TenantKey, place: &str, plaintext: &[u8]) -> [u8; SALT_BYTES] {
    let mut salt = [0_u8; SALT_BYTES];
    derive(key, 1, place, plaintext).fill(&mut salt);
    salt
}

fn commit(salt: &[u8; SALT_BYTES], plaintext: &[u8]) -> String {
    hex(&Sha256::new().chain_update(salt).chain_update(plaintext).finalize())
}

fn nonce(key: &TenantKey, place: &str, commitment: &str) -> XNonce {
    let mut nonce = [0_u8; NONCE_BYTES];
    derive(key, 2, place, commitment.as_bytes()).fill(&mut nonce);
    nonce.into()
}

/// The last byte of what is encrypted: it is compressed.
const COMPRESSED: u8 = 1;
/// The last byte of what is encrypted: the salt stands before it.
const SALTED: u8 = 2;

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
    let salt = salt(key, &place, plaintext);
    let commitment = commit(&salt, plaintext);
    let own = own(&place, plaintext, reuse)?;
    let bytes = encrypt(key, &place, &commitment, &own, None)?;
    Ok(Sealed { bytes, commitment, salt })
}

/// Seals what a record of this or another log commits to; the same bytes as there, if the key is.
pub(crate) fn seal_again(
    key: &TenantKey,
    stream: &StreamKey,
    reference: PayloadRef,
    opening: &Opening,
    meta: &PayloadMeta,
) -> Result<Vec<u8>, LogError> {
    let place = place(stream, reference);
    if !opening.opens(&meta.commitment) {
        return Err(LogError::corrupt(&place, NOT_COMMITTED));
    }
    let is_own = opening.salt == salt(key, &place, &opening.bytes);
    let carried = (!is_own).then_some(&opening.salt);
    let own = own(&place, &opening.bytes, meta.reuse.as_ref())?;
    encrypt(key, &place, &meta.commitment, &own, carried)
}

const NOT_COMMITTED: &str = "the payload is not the one that the chain commits to";

/// What of a plaintext is not stored elsewhere.
fn own<'a>(
    place: &str,
    plaintext: &'a [u8],
    reuse: Option<&Reuse>,
) -> Result<Cow<'a, [u8]>, LogError> {
    let Some(reuse) = reuse else { return Ok(Cow::Borrowed(plaintext)) };
    let own = reuse.own(plaintext).map(Cow::Owned);
    own.ok_or_else(|| LogError::corrupt(place, "its parts do not fit"))
}

fn encrypt(
    key: &TenantKey,
    place: &str,
    commitment: &str,
    own: &[u8],
    carried: Option<&[u8; SALT_BYTES]>,
) -> Result<Vec<u8>, LogError> {
    let mut packed = pack(own).unwrap_or_else(|| own.to_vec());
    let mut form = if packed.len() < own.len() { COMPRESSED } else { 0 };
    if let Some(salt) = carried {
        packed.extend_from_slice(salt);
        form |= SALTED;
    }
    packed.push(form);
    let input = Input { msg: &packed, aad: place.as_bytes() };
    let sealed = cipher(key).encrypt(&nonce(key, place, commitment), input);
    sealed.map_err(|_| LogError::Unavailable("sealing failed".into()))
}

/// The plaintext compressed, if that makes it smaller.
fn pack(plaintext: &[u8]) -> Option<Vec<u8>> {
    if plaintext.len() < LEAST_PACKED {
        return None;
    }
    let packed =
        COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut()?.compress(plaintext).ok())?;
    (packed.len() < plaintext.len()).then_some(packed)
}

/// What [`pack`] made, if it has not more than `limit` bytes.
fn unpack(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR
        .with_borrow_mut(|decompressor| decompressor.as_mut()?.decompress(packed, limit).ok())
}

/// Opens what [`seal`] made: all of a plaintext that is not stored elsewhere.
pub(crate) fn open(
    key: &TenantKey,
    stream: &StreamKey,
    reference: PayloadRef,
    sealed: &[u8],
    commitment: &str,
    plaintext_bytes: u64,
) -> Result<Own, LogError> {
    let place = place(stream, reference);
    let corrupt = |reason: &str| LogError::corrupt(&place, reason);
    let input = Input { msg: sealed, aad: place.as_bytes() };
    let opened = cipher(key).decrypt(&nonce(key, &place, commitment), input);
    let mut packed =
        opened.map_err(|_| corrupt("the payload was changed, or its key is another"))?;
    let form = packed.pop().unwrap_or_default();
    let carried = (form & SALTED != 0)
        .then(|| packed.split_off(packed.len().saturating_sub(SALT_BYTES)))
        .and_then(|salt| salt.try_into().ok());
    if form & COMPRESSED == 0 {
        return Ok(Own { bytes: packed, salt: carried });
    }
    let limit = usize::try_from(plaintext_bytes).unwrap_or(usize::MAX);
    let bytes = unpack(&packed, limit);
    let bytes = bytes.ok_or_else(|| corrupt("the payload cannot be unpacked"))?;
    Ok(Own { bytes, salt: carried })
}

/// A whole plaintext, checked against the chain's commitment. `own` is what was stored of it.
pub(crate) fn opening(
    key: &TenantKey,
    stream: &StreamKey,
    reference: PayloadRef,
    plaintext: Vec<u8>,
    own: &Own,
    commitment: &str,
) -> Result<Opening, LogError> {
    let place = place(stream, reference);
    let salt = own.salt.unwrap_or_else(|| salt(key, &place, &plaintext));
    let opening = Opening { bytes: Bytes::from(plaintext), salt };
    if opening.opens(commitment) {
        return Ok(opening);
    }
    Err(LogError::corrupt(&place, NOT_COMMITTED))
}

fn cipher(key: &TenantKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&key.0).into())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
