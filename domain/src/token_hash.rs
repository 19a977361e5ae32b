//! [`TokenHash`], by which an access token is known without its text.

use std::fmt;
use std::str::FromStr;

use crate::id::{TokenId, derive_uuid};
use crate::serde_text::written_as_text;

/// BLAKE3 of a token, written as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash([u8; 32]);

written_as_text!(TokenHash);

/// Error of a text that is no token hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the BLAKE3 of a token has 64 hexadecimal digits in lower case")]
pub struct InvalidTokenHash;

impl TokenHash {
    /// Hashes a token.
    pub fn from_token(token: &str) -> Self {
        Self(*blake3::hash(token.as_bytes()).as_bytes())
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl FromStr for TokenHash {
    type Err = InvalidTokenHash;
    fn from_str(text: &str) -> Result<Self, InvalidTokenHash> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| InvalidTokenHash)?;
        let hash = Self(*hash.as_bytes());
        // `from_hex` accepts upper case, which would give one hash two texts.
        if hash.to_string() == text { Ok(hash) } else { Err(InvalidTokenHash) }
    }
}

impl TokenId {
    /// Derives the id of the token with this hash: the same token is the same entity.
    pub fn from_hash(hash: &TokenHash) -> Self {
        Self(derive_uuid(&["token/v1", &hash.to_string()]))
    }
}
