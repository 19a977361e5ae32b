//! Sealing payloads: XChaCha20-Poly1305 with a key per tenant.
//!
//! ```text
//! sealed     form 2 (1 byte) · nonce (24) · ciphertext · tag (16)
//! encrypted  what is stored of the plaintext, packed · [salt (32)] · flags (1)
//! beside it  form · place · commitment: authenticated, and stored in the record
//! ```
//!
//! The salt is a keyed hash of the place and the plaintext, the nonce one of the place, the
//! commitment and the very bytes that are encrypted (SIV, RFC 5297): sealing the same commit again
//! gives the same bytes, and no nonce ever meets two messages, however a plaintext is packed. Salt,
//! nonce and cipher have a key of their own each. The form says which key opens a payload: the
//! tenant's own one. A form with the id of a key will be another number.
//!
//! The commitment in the chain is SHA-256(salt ‖ plaintext) with the 32-byte salt; without the key
//! the salt is secret, so a commitment tells nothing about a short plaintext, and destroying the
//! key or the sealed bytes leaves nothing to check guesses against. A payload that came with its
//! record from another log keeps the commitment that was made there: its salt cannot be derived
//! here and is sealed with it.

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

use crate::error::LogError;
use crate::record::PayloadMeta;
use crate::reuse::Reuse;
pub(crate) use keys::MasterKey;
pub use keys::{PayloadKeys, TenantKey};
use packing::{pack, unpack};

const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// The first byte of what is sealed by the tenant's own key, its nonce beside it. What was sealed
/// in the first form begins with any byte.
const FORM: u8 = 2;
const HEADER_BYTES: usize = 1 + NONCE_BYTES;

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

/// Where the salt of a commitment comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SaltSource {
    /// It is derived from the plaintext.
    Derived,
    /// It is derived as in the first form.
    FirstForm,
    /// It was made elsewhere, and is stored.
    Stored([u8; SALT_BYTES]),
}

impl SaltSource {
    /// Where this salt of a plaintext comes from.
    fn of(key: &TenantKey, place: &str, opening: &Opening) -> Self {
        match opening.salt {
            own if own == key.salt(place, &opening.bytes) => Self::Derived,
            own if own == first_form::salt(key, place, &opening.bytes) => Self::FirstForm,
            other => Self::Stored(other),
        }
    }

    /// The salt itself.
    fn resolve(self, key: &TenantKey, place: &str, plaintext: &[u8]) -> [u8; SALT_BYTES] {
        match self {
            Self::Derived => key.salt(place, plaintext),
            Self::FirstForm => first_form::salt(key, place, plaintext),
            Self::Stored(salt) => salt,
        }
    }
}

/// What of a payload is stored in its own place.
pub(crate) struct Own {
    /// Of the plaintext, what is not stored elsewhere.
    pub(crate) bytes: Vec<u8>,
    salt: SaltSource,
}

/// A sealed payload, and what the chain says of it.
pub(crate) struct Sealed {
    /// As it is stored.
    pub(crate) bytes: Vec<u8>,
    pub(crate) commitment: String,
    pub(crate) salt: [u8; SALT_BYTES],
}

fn place(stream: &StreamKey, reference: PayloadRef) -> String {
    format!("{stream}#{reference}")
}

fn commit(salt: &[u8; SALT_BYTES], plaintext: &[u8]) -> String {
    hex(&Sha256::new().chain_update(salt).chain_update(plaintext).finalize())
}

/// The last byte of what is encrypted: it is compressed.
const COMPRESSED: u8 = 1;
/// The last byte of what is encrypted: the salt stands before it.
const SALTED: u8 = 2;
/// The last byte of what is encrypted: the salt is derived as in the first form.
const FIRST_SALT: u8 = 4;

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
    let salt = key.salt(&place, plaintext);
    let commitment = commit(&salt, plaintext);
    let own = own(&place, plaintext, reuse)?;
    let bytes = encrypt(key, &place, &commitment, &own, SaltSource::Derived)?;
    Ok(Sealed { bytes, commitment, salt })
}

/// Seals what a record of this or another log commits to; the same bytes as there, if the key and
/// the form are.
pub(crate) fn seal_again(
    key: &TenantKey,
    stream: &StreamKey,
    reference: PayloadRef,
    opening: &Opening,
    meta: &PayloadMeta,
) -> Result<Vec<u8>, LogError> {
    let place = place(stream, reference);
    if !opening.opens(&meta.commitment) || opening.bytes.len() as u64 != meta.bytes {
        return Err(LogError::corrupt(&place, NOT_COMMITTED));
    }
    let own = own(&place, &opening.bytes, meta.reuse.as_ref())?;
    encrypt(key, &place, &meta.commitment, &own, SaltSource::of(key, &place, opening))
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
    salt: SaltSource,
) -> Result<Vec<u8>, LogError> {
    match pack(own) {
        Some(packed) => encrypt_packed(key, place, commitment, (&packed, COMPRESSED), salt),
        None => encrypt_packed(key, place, commitment, (own, 0), salt),
    }
}

/// Encrypts what is packed already; the flags say how.
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
        SaltSource::FirstForm => flags | FIRST_SALT,
        SaltSource::Stored(salt) => {
            sealed.extend_from_slice(&salt);
            flags | SALTED
        }
    };
    sealed.push(flags);
    let nonce: [u8; NONCE_BYTES] = key.nonce(place, commitment, &sealed[HEADER_BYTES..]);
    sealed[1..HEADER_BYTES].copy_from_slice(&nonce);
    let message = &mut sealed[HEADER_BYTES..];
    let beside = bound(place, commitment);
    let tag = cipher(key).encrypt_inout_detached(&nonce.into(), &beside, message.into());
    let tag = tag.map_err(|_| LogError::Unavailable("sealing failed".into()))?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// What is authenticated beside what is encrypted. The commitment of a payload has one length.
fn bound(place: &str, commitment: &str) -> Vec<u8> {
    [&[FORM], place.as_bytes(), commitment.as_bytes()].concat()
}

/// What [`encrypt`] encrypted; nothing if these are other bytes, or the key is another.
fn decrypt(key: &TenantKey, place: &str, sealed: &[u8], commitment: &str) -> Option<Vec<u8>> {
    let (&[FORM], rest) = sealed.split_first_chunk::<1>()? else { return None };
    let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
    let mut message = ciphertext.to_vec();
    let (beside, tag) = (bound(place, commitment), Tag::from(*tag));
    let buffer = message.as_mut_slice().into();
    cipher(key).decrypt_inout_detached(&(*nonce).into(), &beside, buffer, &tag).ok()?;
    Some(message)
}

/// Opens what [`seal`] made, in this form or the first: all of a plaintext that is not stored
/// elsewhere.
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
    let opened = decrypt(key, &place, sealed, commitment).map(|packed| (packed, FORM));
    // What was sealed in the first form may begin with this form's byte by chance.
    let opened =
        opened.or_else(|| Some((first_form::decrypt(key, &place, sealed, commitment)?, 1)));
    let (mut packed, form) =
        opened.ok_or_else(|| corrupt("the payload was changed, or its key is another"))?;
    let flags = packed.pop().unwrap_or_default();
    let salt = match flags & SALTED {
        0 if form == FORM && flags & FIRST_SALT == 0 => SaltSource::Derived,
        0 => SaltSource::FirstForm,
        _ => split_salt(&mut packed).ok_or_else(|| corrupt("the payload lacks its salt"))?,
    };
    if flags & COMPRESSED == 0 {
        return Ok(Own { bytes: packed, salt });
    }
    let bytes = unpack(&packed, plaintext_bytes);
    let bytes = bytes.ok_or_else(|| corrupt("the payload cannot be unpacked"))?;
    Ok(Own { bytes, salt })
}

/// Takes the stored salt off the end.
fn split_salt(packed: &mut Vec<u8>) -> Option<SaltSource> {
    let salt = packed.split_off(packed.len().checked_sub(SALT_BYTES)?);
    salt.try_into().ok().map(SaltSource::Stored)
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
    let salt = own.salt.resolve(key, &place, &plaintext);
    let opening = Opening { bytes: Bytes::from(plaintext), salt };
    if opening.opens(commitment) {
        return Ok(opening);
    }
    Err(LogError::corrupt(&place, NOT_COMMITTED))
}

fn cipher(key: &TenantKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&key.cipher).into())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests;
