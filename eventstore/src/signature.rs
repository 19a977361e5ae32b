//! Ed25519 signatures of exported run files. The signing key is derived from the payload key, so
//! every process of a log, and every copy of its folder, signs alike.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::seal::{MasterKey, to_hex};

const KEY_CONTEXT: &str = "convergio export signing key 1";
/// Domain separation: prefix of what is signed, so that a signature is valid for run files only.
const SIGNATURE_DOMAIN: &[u8] = b"convergio run file 2\n";
/// Length of a key fingerprint in bytes, before hexadecimal encoding.
const FINGERPRINT_BYTES: usize = 16;

/// Signs files that are exported from a log.
pub struct ExportSigner(SigningKey);

impl std::fmt::Debug for ExportSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExportSigner({})", self.fingerprint())
    }
}

impl ExportSigner {
    pub(crate) fn from_master_key(key: &MasterKey) -> Self {
        Self::new(key.as_bytes())
    }

    /// Creates the signer of the logs that have this payload key.
    pub fn new(payload_key: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&blake3::derive_key(KEY_CONTEXT, payload_key)))
    }

    /// Returns the fingerprint of the public key: 32 hexadecimal digits of its SHA-256.
    pub fn fingerprint(&self) -> String {
        key_fingerprint(&self.0.verifying_key())
    }

    pub(crate) fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs the SHA-256 of a file's content.
    pub(crate) fn sign_content(&self, content_hash: &[u8; 32]) -> [u8; 64] {
        self.0.sign(&signed_message(content_hash)).to_bytes()
    }
}

/// Verifies a signature of a content hash; returns the fingerprint of the public key, or `None` if
/// the signature is invalid.
pub(crate) fn verify_signer(
    public_key: &[u8; 32],
    signature: &[u8; 64],
    content_hash: &[u8; 32],
) -> Option<String> {
    let key = VerifyingKey::from_bytes(public_key).ok()?;
    // Strict: rejects small-order keys, under which one signature fits many contents.
    key.verify_strict(&signed_message(content_hash), &Signature::from_bytes(signature)).ok()?;
    Some(key_fingerprint(&key))
}

fn signed_message(content_hash: &[u8; 32]) -> Vec<u8> {
    [SIGNATURE_DOMAIN, content_hash].concat()
}

fn key_fingerprint(key: &VerifyingKey) -> String {
    // 128 bits suffice to compare by eye and resist forging a second key.
    to_hex(&Sha256::digest(key.as_bytes())[..FINGERPRINT_BYTES])
}

#[cfg(test)]
mod tests {
    use super::{ExportSigner, verify_signer};

    #[test]
    fn a_signature_is_of_one_key_and_one_content() {
        let signer = ExportSigner::new(&[7; 32]);
        let (key, signature) = (signer.public_key(), signer.sign_content(&[1; 32]));
        assert_eq!(verify_signer(&key, &signature, &[1; 32]), Some(signer.fingerprint()));
        assert_eq!(verify_signer(&key, &signature, &[2; 32]), None);
        let other = ExportSigner::new(&[8; 32]);
        assert_eq!(verify_signer(&other.public_key(), &signature, &[1; 32]), None);
        assert_ne!(other.fingerprint(), signer.fingerprint());
        assert_eq!(signer.fingerprint().len(), 32);
        let mut changed = signature;
        changed[63] ^= 1;
        assert_eq!(verify_signer(&key, &changed, &[1; 32]), None);
    }
}
