//! Sealing payloads: XChaCha20-Poly1305 with a key per tenant, and salted SHA-256 commitments.
//!
//! ```text
//! sealed     form 2 (1 byte) · nonce (24) · ciphertext · tag (16)
//! encrypted  what is stored of the plaintext, packed · [salt (32)] · flags (1)
//! beside it  form · place · commitment: authenticated, and stored in the record
//! ```
//!
//! The salt is a keyed hash of place and plaintext; the nonce is a keyed hash of place, commitment
//! and the bytes that are encrypted (synthetic IV, RFC 5297). So sealing the same commit again
//! gives the same bytes, and no nonce is used for two messages, however a plaintext is compressed.
//! Salt, nonce and cipher have separate keys. The form byte says which key opens a payload: the
//! tenant's own one. A form with a key id will be another number.
//!
//! The commitment in the hash chain is SHA-256(salt ‖ plaintext) with the 32-byte salt. Without the
//! key the salt is secret, so a commitment reveals nothing about a short plaintext, and destroying
//! the key or the sealed bytes leaves nothing to check guesses against. A payload that was imported
//! with its record keeps the commitment of its original log: its salt cannot be derived here and is
//! sealed with it.
//!
//! Map: `keys` derives all keys, `packing` compresses, `first_form` reads payloads of earlier
//! programs. Providers call [`seal_payload`] and [`open_part`]; `dedup` calls [`check_opening`] on
//! the assembled text. Key storage is not here: the folder or the cluster's configuration has the
//! master key.

mod first_form;
mod keys;
mod packing;

use std::borrow::Cow;

use bytes::Bytes;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305};
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::StreamKey;
use sha2::{Digest, Sha256};

use crate::dedup::PayloadDelta;
use crate::error::LogError;
use crate::record::PayloadMeta;
pub(crate) use keys::MasterKey;
pub use keys::{PayloadKeys, TenantKey};
use packing::{compress_plaintext, decompress_plaintext};

const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// First byte of a payload of this form. Payloads of the first form begin with any byte.
const FORM: u8 = 2;
const HEADER_BYTES: usize = 1 + NONCE_BYTES;

/// Opening of a commitment: the plaintext of a payload and the salt. It proves to anybody that this
/// is what the hash chain commits to.
#[derive(Clone, PartialEq, Eq)]
pub struct Opening {
    /// Plaintext bytes.
    pub bytes: Bytes,
    /// Salt of the commitment.
    pub salt: [u8; SALT_BYTES],
}

impl Opening {
    /// Returns whether a commitment, as hexadecimal digits, is that of this opening.
    pub fn matches_commitment(&self, commitment: &str) -> bool {
        compute_commitment(&self.salt, &self.bytes) == commitment
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opening({} bytes)", self.bytes.len())
    }
}

/// Origin of a commitment's salt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SaltSource {
    /// Derived from place and plaintext.
    Derived,
    /// Derived as in the first form.
    FirstForm,
    /// Made by another log, and stored in the sealed payload.
    Stored([u8; SALT_BYTES]),
}

impl SaltSource {
    /// Finds out how the salt of an opening was made, to store it only if necessary.
    fn for_opening(key: &TenantKey, place: &str, opening: &Opening) -> Self {
        match opening.salt {
            // Comparing derives the salt anew, which saves storing the 32 bytes that can be
            // derived.
            own if own == key.derive_salt(place, &opening.bytes) => Self::Derived,
            own if own == first_form::derive_salt(key, place, &opening.bytes) => Self::FirstForm,
            other => Self::Stored(other),
        }
    }

    /// Returns the salt of a plaintext.
    fn resolve_salt(self, key: &TenantKey, place: &str, plaintext: &[u8]) -> [u8; SALT_BYTES] {
        match self {
            Self::Derived => key.derive_salt(place, plaintext),
            Self::FirstForm => first_form::derive_salt(key, place, plaintext),
            Self::Stored(salt) => salt,
        }
    }
}

/// Decrypted part of a payload that is stored in its own place, not by other payloads.
pub(crate) struct StoredPart {
    /// Plaintext bytes that no other payload holds.
    pub(crate) bytes: Vec<u8>,
    salt_source: SaltSource,
}

/// A sealed payload with its commitment.
pub(crate) struct SealedPayload {
    /// Sealed bytes, as they are stored.
    pub(crate) bytes: Vec<u8>,
    pub(crate) commitment: String,
    pub(crate) salt: [u8; SALT_BYTES],
}

fn payload_place(stream: &StreamKey, reference: PayloadRef) -> String {
    format!("{stream}#{reference}")
}

fn compute_commitment(salt: &[u8; SALT_BYTES], plaintext: &[u8]) -> String {
    to_hex(&Sha256::new().chain_update(salt).chain_update(plaintext).finalize())
}

/// Flag in the last encrypted byte: the plaintext is compressed.
const FLAG_COMPRESSED: u8 = 1;
/// Flag in the last encrypted byte: the salt precedes it.
const FLAG_SALTED: u8 = 2;
/// Flag in the last encrypted byte: the salt is derived as in the first form.
const FLAG_FIRST_SALT: u8 = 4;

/// Seals the part of a plaintext that no other payload holds. It is compressed if that makes it
/// smaller; the last encrypted byte has a flag for it.
pub(crate) fn seal_payload(
    key: &TenantKey,
    stream: &StreamKey,
    reference: PayloadRef,
    plaintext: &[u8],
    reuse: Option<&PayloadDelta>,
) -> Result<SealedPayload, LogError> {
    let place = payload_place(stream, reference);
    let salt = key.derive_salt(&place, plaintext);
    let commitment = compute_commitment(&salt, plaintext);
    let own = stored_bytes(&place, plaintext, reuse)?;
    let bytes = encrypt_part(key, &place, &commitment, &own, SaltSource::Derived)?;
    Ok(SealedPayload { bytes, commitment, salt })
}

/// Seals an opening that a record of this or another log commits to. The bytes equal the original
/// ones if key and form are the same.
pub(crate) fn reseal_payload(
    key: &TenantKey,
    stream: &StreamKey,
    reference: PayloadRef,
    opening: &Opening,
    meta: &PayloadMeta,
) -> Result<Vec<u8>, LogError> {
    let place = payload_place(stream, reference);
    if !opening.matches_commitment(&meta.commitment) || opening.bytes.len() as u64 != meta.bytes {
        return Err(LogError::corrupt(&place, NOT_COMMITTED));
    }
    let own = stored_bytes(&place, &opening.bytes, meta.reuse.as_ref())?;
    encrypt_part(key, &place, &meta.commitment, &own, SaltSource::for_opening(key, &place, opening))
}

const NOT_COMMITTED: &str = "the payload is not the one that the chain commits to";

/// Returns the part of a plaintext that no other payload holds.
fn stored_bytes<'a>(
    place: &str,
    plaintext: &'a [u8],
    reuse: Option<&PayloadDelta>,
) -> Result<Cow<'a, [u8]>, LogError> {
    let Some(reuse) = reuse else { return Ok(Cow::Borrowed(plaintext)) };
    let own = reuse.stored_bytes(plaintext).map(Cow::Owned);
    own.ok_or_else(|| LogError::corrupt(place, "its parts do not fit"))
}

fn encrypt_part(
    key: &TenantKey,
    place: &str,
    commitment: &str,
    own: &[u8],
    salt: SaltSource,
) -> Result<Vec<u8>, LogError> {
    match compress_plaintext(own) {
        Some(packed) => encrypt_packed(key, place, commitment, (&packed, FLAG_COMPRESSED), salt),
        None => encrypt_packed(key, place, commitment, (own, 0), salt),
    }
}

/// Encrypts bytes that are compressed according to the flags.
fn encrypt_packed(
    key: &TenantKey,
    place: &str,
    commitment: &str,
    (packed, flags): (&[u8], u8),
    salt: SaltSource,
) -> Result<Vec<u8>, LogError> {
    let most = HEADER_BYTES + packed.len() + SALT_BYTES + 1 + TAG_BYTES;
    let mut sealed = Vec::with_capacity(most);
    sealed.resize(HEADER_BYTES, FORM);
    sealed.extend_from_slice(packed);
    let flags = match salt {
        SaltSource::Derived => flags,
        SaltSource::FirstForm => flags | FLAG_FIRST_SALT,
        SaltSource::Stored(salt) => {
            sealed.extend_from_slice(&salt);
            flags | FLAG_SALTED
        }
    };
    sealed.push(flags);
    // The flags are part of the message, so the nonce covers them as well.
    let nonce: [u8; NONCE_BYTES] = key.derive_nonce(place, commitment, &sealed[HEADER_BYTES..]);
    sealed[1..HEADER_BYTES].copy_from_slice(&nonce);
    let message = &mut sealed[HEADER_BYTES..];
    let beside = associated_data(place, commitment);
    let tag = tenant_cipher(key).encrypt_inout_detached(&nonce.into(), &beside, message.into());
    let tag = tag.map_err(|_| LogError::Unavailable("sealing failed".into()))?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// Returns the associated data: form, place, and commitment. The commitment has a fixed length, so
/// the concatenation is unambiguous.
fn associated_data(place: &str, commitment: &str) -> Vec<u8> {
    [&[FORM], place.as_bytes(), commitment.as_bytes()].concat()
}

/// Decrypts and authenticates; `None` if the bytes were changed, moved, or sealed with another key.
fn decrypt_part(key: &TenantKey, place: &str, sealed: &[u8], commitment: &str) -> Option<Vec<u8>> {
    let (&[FORM], rest) = sealed.split_first_chunk::<1>()? else { return None };
    let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
    let mut message = ciphertext.to_vec();
    let (beside, tag) = (associated_data(place, commitment), Tag::from(*tag));
    let buffer = message.as_mut_slice().into();
    tenant_cipher(key).decrypt_inout_detached(&(*nonce).into(), &beside, buffer, &tag).ok()?;
    Some(message)
}

/// Opens a sealed payload of this form or the first one: the part of the plaintext that no other
/// payload holds.
pub(crate) fn open_part(
    key: &TenantKey,
    stream: &StreamKey,
    reference: PayloadRef,
    sealed: &[u8],
    commitment: &str,
    plaintext_bytes: u64,
) -> Result<StoredPart, LogError> {
    let place = payload_place(stream, reference);
    let corrupt = |reason: &str| LogError::corrupt(&place, reason);
    let opened = decrypt_part(key, &place, sealed, commitment).map(|packed| (packed, FORM));
    // A payload of the first form may begin with this form's byte by chance, so both are tried.
    let opened = opened
        .or_else(|| Some((first_form::decrypt_first_form(key, &place, sealed, commitment)?, 1)));
    let (mut packed, form) =
        opened.ok_or_else(|| corrupt("the payload was changed, or its key is another"))?;
    let flags = packed.pop().unwrap_or_default();
    let salt = match flags & FLAG_SALTED {
        0 if form == FORM && flags & FLAG_FIRST_SALT == 0 => SaltSource::Derived,
        0 => SaltSource::FirstForm,
        _ => split_salt(&mut packed).ok_or_else(|| corrupt("the payload lacks its salt"))?,
    };
    if flags & FLAG_COMPRESSED == 0 {
        return Ok(StoredPart { bytes: packed, salt_source: salt });
    }
    let bytes = decompress_plaintext(&packed, plaintext_bytes);
    let bytes = bytes.ok_or_else(|| corrupt("the payload cannot be unpacked"))?;
    Ok(StoredPart { bytes, salt_source: salt })
}

/// Splits the stored salt off the end.
fn split_salt(packed: &mut Vec<u8>) -> Option<SaltSource> {
    let salt = packed.split_off(packed.len().checked_sub(SALT_BYTES)?);
    salt.try_into().ok().map(SaltSource::Stored)
}

/// Checks a whole plaintext against its commitment and returns the opening. `own` is the stored
/// part, which has the salt or says how to derive it.
pub(crate) fn check_opening(
    key: &TenantKey,
    stream: &StreamKey,
    reference: PayloadRef,
    plaintext: Vec<u8>,
    own: &StoredPart,
    commitment: &str,
) -> Result<Opening, LogError> {
    let place = payload_place(stream, reference);
    let salt = own.salt_source.resolve_salt(key, &place, &plaintext);
    let opening = Opening { bytes: Bytes::from(plaintext), salt };
    if opening.matches_commitment(commitment) {
        return Ok(opening);
    }
    Err(LogError::corrupt(&place, NOT_COMMITTED))
}

fn tenant_cipher(key: &TenantKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&key.cipher).into())
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests;
