//! [`Fingerprint`], the short hash of a state.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Short hash of a state. Equal states have equal fingerprints on every machine. It shows where a
/// replay diverges; it is no proof of integrity, which is the task of the hash chain. Serialised as
/// 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let number = u64::from_str_radix(&text, 16).ok().map(Self);
        // Only the canonical form is accepted, so that a fingerprint has exactly one spelling.
        let fingerprint = number.filter(|print| print.to_string() == text);
        fingerprint.ok_or_else(|| format!("`{text}` is no fingerprint: 16 hexadecimal digits"))
    }
}
