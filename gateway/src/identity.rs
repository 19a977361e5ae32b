//! The caller of a request, as its token identifies it.

use convergio_domain::id::{ActorId, TenantId, TokenId};

/// The authenticated caller of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) tenant: TenantId,
    pub(crate) actor: ActorId,
    pub(crate) roles: Vec<String>,
    /// Id of the token that the request presented.
    pub(crate) token: TokenId,
}
