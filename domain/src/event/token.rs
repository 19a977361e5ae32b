//! Payloads of access token events, version 1. They form one stream for each tenant.

use serde::{Deserialize, Serialize};

use crate::id::{ActorId, Name, TokenId};
use crate::token_hash::TokenHash;

/// `token.issued.v1`: a bearer of the token with this hash acts as `actor` from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenIssued {
    /// Id of the token.
    pub token: TokenId,
    /// Actor that the bearer acts as.
    pub actor: ActorId,
    /// Roles whose approvals the bearer may answer.
    pub roles: Vec<Name>,
    /// BLAKE3 of the token, as hexadecimal digits. The token itself is stored nowhere.
    pub hash: TokenHash,
}

/// `token.revoked.v1`: the token is invalid for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRevoked {
    /// Id of the token.
    pub token: TokenId,
}
