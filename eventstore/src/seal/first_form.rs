//! Payloads that earlier programs sealed: read for ever, written no more.
//!
//! One key did all three: salt, nonce and cipher. The nonce followed from the commitment alone, and
//! stood nowhere; what was encrypted was packed, so that another packing of one plaintext met the
//! same nonce.

use chacha20poly1305::aead::{Aead, KeyInit, Payload as Input};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use super::{NONCE_BYTES, SALT_BYTES, TenantKey};

/// Keyed BLAKE3 of what is used for one purpose at one place.
fn derive(key: &TenantKey, purpose: u8, place: &str, bytes: &[u8]) -> blake3::OutputReader {
    let mut hasher = blake3::Hasher::new_keyed(&key.data);
    hasher.update(place.as_bytes());
    hasher.update(&[0, purpose]);
    hasher.update(bytes);
    hasher.finalize_xof()
}

pub(super) fn salt(key: &TenantKey, place: &str, plaintext: &[u8]) -> [u8; SALT_BYTES] {
    let mut salt = [0_u8; SALT_BYTES];
    derive(key, 1, place, plaintext).fill(&mut salt);
    salt
}

fn nonce(key: &TenantKey, place: &str, commitment: &str) -> XNonce {
    let mut nonce = [0_u8; NONCE_BYTES];
    derive(key, 2, place, commitment.as_bytes()).fill(&mut nonce);
    nonce.into()
}

/// What was encrypted, if this is what it was and the key is the same.
pub(super) fn decrypt(
    key: &TenantKey,
    place: &str,
    sealed: &[u8],
    commitment: &str,
) -> Option<Vec<u8>> {
    let cipher = XChaCha20Poly1305::new((&key.data).into());
    let input = Input { msg: sealed, aad: place.as_bytes() };
    cipher.decrypt(&nonce(key, place, commitment), input).ok()
}

/// Encrypts as earlier programs did, so that there is something to read.
#[cfg(test)]
pub(super) fn encrypt(key: &TenantKey, place: &str, packed: &[u8], commitment: &str) -> Vec<u8> {
    let cipher = XChaCha20Poly1305::new((&key.data).into());
    let input = Input { msg: packed, aad: place.as_bytes() };
    cipher.encrypt(&nonce(key, place, commitment), input).unwrap()
}
