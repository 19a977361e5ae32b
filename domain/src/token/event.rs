//! Payloads of access token events, version 1. They form one stream for each tenant.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::event::noun_events::noun_events;
use crate::id::{ActorId, Name, TokenId};
use crate::token_hash::TokenHash;

noun_events! {
    /// Events of token streams.
    pub enum TokenEvent {
        TokenIssued(TokenIssued) = "token.issued.v1",
        TokenRevoked(TokenRevoked) = "token.revoked.v1",
    }
}

impl TokenEvent {
    /// Returns the content of the event that an auditor sees; `None` for bookkeeping.
    pub(crate) fn audit_summary(&self) -> Option<Value> {
        Some(match self {
            Self::TokenIssued(e) => json!({"token": e.token, "for": e.actor, "roles": e.roles}),
            Self::TokenRevoked(e) => json!({"token": e.token}),
        })
    }
}

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
