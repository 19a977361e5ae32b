//! Tokens: who may come in. The token itself never travels but to open something.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A token for somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// The name that stands in the log for who has it.
    pub actor: String,
    /// What they may answer for.
    pub roles: Vec<String>,
    /// BLAKE3 of the token, which only its maker knows: 64 hexadecimal digits.
    pub blake3: String,
}

/// A token in place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRotation {
    /// BLAKE3 of the new token: 64 hexadecimal digits.
    pub blake3: String,
}

/// An access token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its id; nothing can be opened by it.
    pub id: String,
    /// For whom it speaks.
    pub actor: String,
    /// What they may answer for.
    pub roles: Vec<String>,
    /// When it was issued, RFC 3339.
    pub issued_at: String,
    /// Whether it opens nothing any more.
    pub revoked: bool,
}
