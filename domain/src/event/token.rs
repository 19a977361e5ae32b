//! Events of a tenant's tokens, version 1: who may come in.

use serde::{Deserialize, Serialize};

use crate::id::{ActorId, Name, TokenId};
use crate::token::TokenHash;

/// `token.issued.v1`: whoever shows the token that has this hash acts as somebody from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Which token.
    pub token: TokenId,
    /// For whom it speaks.
    pub actor: ActorId,
    /// What they may answer for.
    pub roles: Vec<Name>,
    /// BLAKE3 of the token, as hexadecimal digits. The token itself stands nowhere.
    pub hash: TokenHash,
}

/// `token.revoked.v1`: it opens nothing any more, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Which token.
    pub token: TokenId,
}
