//! The first form of sealed payloads: read for ever, written no more.
//!
//! One key served for salt, nonce and cipher. The nonce was derived from the commitment alone and
//! not stored; the compressed bytes were encrypted, so another compression of one plaintext reused
//! its nonce.

use chacha20poly1305::aead::{Aead, KeyInit, Payload as Input};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use super::{NONCE_BYTES, SALT_BYTES, TenantKey};

/// Computes the keyed BLAKE3 of bytes at a place, separated by purpose: 1 is a salt, 2 a nonce.
fn keyed_hash(key: &TenantKey, purpose: u8, place: &str, bytes: &[u8]) -> blake3::OutputReader {
    let mut hasher = blake3::Hasher::new_keyed(&key.data);
    hasher.update(place.as_bytes());
    hasher.update(&[0, purpose]);
    hasher.update(bytes);
    hasher.finalize_xof()
}

pub(super) fn derive_salt(key: &TenantKey, place: &str, plaintext: &[u8]) -> [u8; SALT_BYTES] {
    let mut salt = [0_u8; SALT_BYTES];
    keyed_hash(key, 1, place, plaintext).fill(&mut salt);
    salt
}

fn derive_nonce(key: &TenantKey, place: &str, commitment: &str) -> XNonce {
    let mut nonce = [0_u8; NONCE_BYTES];
    keyed_hash(key, 2, place, commitment.as_bytes()).fill(&mut nonce);
    nonce.into()
}

/// Decrypts and authenticates; `None` if the bytes were changed, moved, or sealed with another key.
pub(super) fn decrypt_first_form(
    key: &TenantKey,
    place: &str,
    sealed: &[u8],
    commitment: &str,
) -> Option<Vec<u8>> {
    let cipher = XChaCha20Poly1305::new((&key.data).into());
    let input = Input { msg: sealed, aad: place.as_bytes() };
    cipher.decrypt(&derive_nonce(key, place, commitment), input).ok()
}

/// Encrypts as earlier programs did, to have test data.
#[cfg(test)]
pub(super) fn encrypt(key: &TenantKey, place: &str, packed: &[u8], commitment: &str) -> Vec<u8> {
    let cipher = XChaCha20Poly1305::new((&key.data).into());
    let input = Input { msg: packed, aad: place.as_bytes() };
    cipher.encrypt(&derive_nonce(key, place, commitment), input).unwrap()
}
