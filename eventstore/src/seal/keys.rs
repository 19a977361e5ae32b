//! Keys: one master key, a data key for each tenant, and a key of its own for each purpose.

use std::sync::{Arc, Mutex, PoisonError};

use convergio_domain::id::TenantId;
use zeroize::Zeroize;

use super::SALT_BYTES;
use crate::error::LogError;

const SALT_CONTEXT: &str = "convergio payload 2 salt";
const NONCE_CONTEXT: &str = "convergio payload 2 nonce";
const CIPHER_CONTEXT: &str = "convergio payload 2 cipher";

/// A tenant's data key, and what is derived from it: no key both hashes and encrypts.
#[derive(Clone)]
pub struct TenantKey {
    /// The data key itself: payloads of the first form are read with it.
    pub(super) data: [u8; 32],
    salt: [u8; 32],
    nonce: [u8; 32],
    pub(super) cipher: [u8; 32],
}

impl Drop for TenantKey {
    fn drop(&mut self) {
        for key in [&mut self.data, &mut self.salt, &mut self.nonce, &mut self.cipher] {
            key.zeroize();
        }
    }
}

impl std::fmt::Debug for TenantKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TenantKey(…)")
    }
}

impl TenantKey {
    /// The keys of a tenant's data key.
    pub fn new(data: [u8; 32]) -> Self {
        let key = |context| blake3::derive_key(context, &data);
        let (salt, nonce, cipher) = (key(SALT_CONTEXT), key(NONCE_CONTEXT), key(CIPHER_CONTEXT));
        Self { data, salt, nonce, cipher }
    }

    /// The salt of a plaintext at a place.
    pub(super) fn salt(&self, place: &str, plaintext: &[u8]) -> [u8; SALT_BYTES] {
        hash_at(&self.salt, place, &[plaintext])
    }

    /// The nonce of what is encrypted at a place: other bytes, another nonce.
    pub(super) fn nonce<const N: usize>(
        &self,
        place: &str,
        commitment: &str,
        packed: &[u8],
    ) -> [u8; N] {
        hash_at(&self.nonce, place, &[commitment.as_bytes(), packed])
    }
}

/// Keyed BLAKE3 of a place and what is there. Each part has its length before it, so that no two
/// lists of parts are the same bytes.
fn hash_at<const N: usize>(key: &[u8; 32], place: &str, parts: &[&[u8]]) -> [u8; N] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in [place.as_bytes()].iter().chain(parts) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut hash = [0_u8; N];
    hasher.finalize_xof().fill(&mut hash);
    hash
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
pub(crate) struct MasterKey {
    key: [u8; 32],
    /// The one that was asked for last: most processes serve one tenant.
    last: Arc<Mutex<Option<(TenantId, TenantKey)>>>,
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl MasterKey {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { key, last: Arc::default() }
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.key
    }

    fn derive(&self, tenant: &TenantId) -> TenantKey {
        let mut hasher = blake3::Hasher::new_derive_key("convergio payload tenant key v1");
        hasher.update(&self.key);
        hasher.update(tenant.as_str().as_bytes());
        TenantKey::new(*hasher.finalize().as_bytes())
    }
}

impl PayloadKeys for MasterKey {
    fn key(&self, tenant: &TenantId) -> Result<TenantKey, LogError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = last.as_ref().filter(|(known, _)| known == tenant) {
            return Ok(key.clone());
        }
        let key = self.derive(tenant);
        *last = Some((tenant.clone(), key.clone()));
        Ok(key)
    }
}
