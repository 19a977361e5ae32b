//! Keys: one master key, a data key per tenant, and keys derived from it per purpose.

use std::sync::{Arc, Mutex, PoisonError};

use convergio_domain::id::TenantId;
use zeroize::Zeroize;

use super::SALT_BYTES;
use crate::error::LogError;

const SALT_CONTEXT: &str = "convergio payload 2 salt";
const NONCE_CONTEXT: &str = "convergio payload 2 nonce";
const CIPHER_CONTEXT: &str = "convergio payload 2 cipher";

/// A tenant's data key and the keys derived from it. No key both hashes and encrypts. Zeroed on
/// drop.
#[derive(Clone)]
pub struct TenantKey {
    /// Data key; payloads of the first form are opened with it.
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
    /// Derives the keys from a tenant's data key.
    pub fn new(data: [u8; 32]) -> Self {
        let key = |context| blake3::derive_key(context, &data);
        let (salt, nonce, cipher) = (key(SALT_CONTEXT), key(NONCE_CONTEXT), key(CIPHER_CONTEXT));
        Self { data, salt, nonce, cipher }
    }

    /// Derives the salt of a plaintext at a place.
    pub(super) fn derive_salt(&self, place: &str, plaintext: &[u8]) -> [u8; SALT_BYTES] {
        keyed_hash(&self.salt, place, &[plaintext])
    }

    /// Derives the nonce of a message at a place: other bytes, another nonce.
    pub(super) fn derive_nonce<const N: usize>(
        &self,
        place: &str,
        commitment: &str,
        packed: &[u8],
    ) -> [u8; N] {
        keyed_hash(&self.nonce, place, &[commitment.as_bytes(), packed])
    }
}

/// Computes the keyed BLAKE3 of a place and parts. Each part is preceded by its length, so that no
/// two lists of parts give the same input.
fn keyed_hash<const N: usize>(key: &[u8; 32], place: &str, parts: &[&[u8]]) -> [u8; N] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in [place.as_bytes()].iter().chain(parts) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut hash = [0_u8; N];
    hasher.finalize_xof().fill(&mut hash);
    hash
}

/// Source of tenants' keys.
pub trait PayloadKeys: Send + Sync + 'static {
    /// Returns the keys of a tenant.
    ///
    /// # Errors
    /// The key is not available.
    fn tenant_key(&self, tenant: &TenantId) -> Result<TenantKey, LogError>;
}

/// A master key from which all tenants' keys are derived. Zeroed on drop.
#[derive(Clone)]
pub(crate) struct MasterKey {
    key: [u8; 32],
    /// Cache of the last tenant: most processes serve one.
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

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.key
    }

    fn derive_tenant_key(&self, tenant: &TenantId) -> TenantKey {
        let mut hasher = blake3::Hasher::new_derive_key("convergio payload tenant key v1");
        hasher.update(&self.key);
        hasher.update(tenant.as_str().as_bytes());
        TenantKey::new(*hasher.finalize().as_bytes())
    }
}

impl PayloadKeys for MasterKey {
    fn tenant_key(&self, tenant: &TenantId) -> Result<TenantKey, LogError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = last.as_ref().filter(|(known, _)| known == tenant) {
            return Ok(key.clone());
        }
        let key = self.derive_tenant_key(tenant);
        *last = Some((tenant.clone(), key.clone()));
        Ok(key)
    }
}
