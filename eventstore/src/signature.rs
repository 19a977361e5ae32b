//! Signatures of files that leave the log: Ed25519, by a key that is derived from the payload key,
//! so that every process of a log, and every copy of its folder, signs alike.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::seal::{MasterKey, hex};

const KEY_CONTEXT: &str = "convergio export signing key 1";
/// What a signature is for, so that it is of no use for anything else.
const PURPOSE: &[u8] = b"convergio run file 2\n";
/// Bytes of a fingerprint.
const FINGERPRINT_BYTES: usize = 16;

/// Vouches for what is exported.
pub struct ExportSigner(SigningKey);

impl std::fmt::Debug for ExportSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExportSigner({})", self.fingerprint())
    }
}

impl ExportSigner {
    pub(crate) fn of(key: &MasterKey) -> Self {
        Self::new(key.bytes())
    }

    /// The signer of the logs whose payload key this is.
    pub fn new(payload_key: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&blake3::derive_key(KEY_CONTEXT, payload_key)))
    }

    /// What its public key is known by: 32 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.0.verifying_key())
    }

    pub(crate) fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs the hash of a file's content.
    pub(crate) fn sign(&self, content_hash: &[u8; 32]) -> [u8; 64] {
        self.0.sign(&message(content_hash)).to_bytes()
    }
}

/// The fingerprint of a public key, if it has signed the hash of a file's content.
pub(crate) fn signer_of(
    public_key: &[u8; 32],
    signature: &[u8; 64],
    content_hash: &[u8; 32],
) -> Option<String> {
    let key = VerifyingKey::from_bytes(public_key).ok()?;
    key.verify_strict(&message(content_hash), &Signature::from_bytes(signature)).ok()?;
    Some(fingerprint(&key))
}

fn message(content_hash: &[u8; 32]) -> Vec<u8> {
    [PURPOSE, content_hash].concat()
}

fn fingerprint(key: &VerifyingKey) -> String {
    hex(&Sha256::digest(key.as_bytes())[..FINGERPRINT_BYTES])
}

#[cfg(test)]
mod tests {
    use super::{ExportSigner, signer_of};

    #[test]
    fn a_signature_is_of_one_key_and_one_content() {
        let signer = ExportSigner::new(&[7; 32]);
        let (key, signature) = (signer.public_key(), signer.sign(&[1; 32]));
        assert_eq!(signer_of(&key, &signature, &[1; 32]), Some(signer.fingerprint()));
        assert_eq!(signer_of(&key, &signature, &[2; 32]), None);
        let other = ExportSigner::new(&[8; 32]);
        assert_eq!(signer_of(&other.public_key(), &signature, &[1; 32]), None);
        assert_ne!(other.fingerprint(), signer.fingerprint());
        assert_eq!(signer.fingerprint().len(), 32);
        let mut changed = signature;
        changed[63] ^= 1;
        assert_eq!(signer_of(&key, &changed, &[1; 32]), None);
    }
}
