//! Authentication by bearer tokens, which are stored and compared as hashes only.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use convergio_application::Caller;
use convergio_domain::id::{ActorId, TenantId, TokenId};
use convergio_domain::stream::Seq;
use convergio_domain::token::{self, TokenHash};
use convergio_schemas::error_code;
use futures_util::StreamExt;
use tokio::sync::watch;

use crate::problem::ApiError;
use crate::unauthenticated_connections::ConnectionAdmission;

/// The access tokens in force, by their hashes. Clones share one table.
#[derive(Clone)]
pub struct TokenRegistry(Arc<TokenTable>);

/// The table, and a channel that announces its changes to open streams.
struct TokenTable {
    entries: RwLock<TokenEntries>,
    changes: watch::Sender<()>,
}

/// The holder of an access token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    caller: Caller,
    token: TokenId,
}

#[derive(Default)]
/// Identities by token hash, and the sequence number up to which each tenant's tokens are applied.
struct TokenEntries {
    identities: HashMap<TokenHash, Identity>,
    /// Last applied event of each tenant's token stream; older states are ignored.
    applied_seqs: HashMap<TenantId, Seq>,
}

/// An access token, by its hash, with the identity that it grants.
#[derive(Debug, Clone)]
pub struct TokenRegistration {
    /// BLAKE3 hash of the token.
    pub hash: TokenHash,
    /// Tenant whose data the token opens.
    pub tenant: TenantId,
    /// Actor that events of the caller are attributed to.
    pub actor: ActorId,
    /// Roles whose approvals the actor may answer.
    pub roles: Vec<String>,
}

impl Default for TokenRegistry {
    fn default() -> Self {
        Self::new([])
    }
}

impl TokenRegistry {
    /// Creates a registry of exactly these tokens; the log's tokens replace them tenant by tenant.
    pub fn new(tokens: impl IntoIterator<Item = TokenRegistration>) -> Self {
        let identities =
            tokens.into_iter().map(|TokenRegistration { hash, tenant, actor, roles }| {
                let caller = Caller { roles, ..Caller::new(tenant, actor) };
                (hash, Identity { caller, token: TokenId::from_hash(&hash) })
            });
        let entries =
            TokenEntries { identities: identities.collect(), applied_seqs: HashMap::new() };
        Self(Arc::new(TokenTable {
            entries: RwLock::new(entries),
            changes: watch::Sender::new(()),
        }))
    }

    /// Replaces a tenant's tokens by the state at an event, unless a later state is applied
    /// already.
    pub fn replace_tenant_tokens(&self, tenant: &TenantId, seq: Seq, state: &token::TokenState) {
        {
            let mut entries = self.0.entries.write().unwrap_or_else(PoisonError::into_inner);
            // Both the token feed and the handler of a token command call this, in either order.
            if entries.applied_seqs.get(tenant).is_some_and(|read| *read > seq) {
                return;
            }
            entries.applied_seqs.insert(tenant.clone(), seq);
            // Tokens that are missing in the new state are revoked, so all of the tenant's go
            // first.
            entries.identities.retain(|_, identity| identity.caller.tenant != *tenant);
            let identity = |(id, token): (TokenId, &token::IssuedToken)| {
                let roles = token.roles.iter().map(ToString::to_string).collect();
                let caller = Caller { roles, ..Caller::new(tenant.clone(), token.actor.clone()) };
                Identity { caller, token: id }
            };
            let live = state.live_tokens().map(|(id, token)| (token.hash, identity((id, token))));
            entries.identities.extend(live);
        }
        // Notified after the lock is released: waiters look into the table at once.
        self.0.changes.send_replace(());
    }

    /// Returns the identity of a token. Its lookup takes no secret-dependent time that an attacker
    /// could use, because the key is a hash.
    fn find_identity(&self, token: &str) -> Option<Identity> {
        let entries = self.0.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.identities.get(&TokenHash::from_token(token)).cloned()
    }

    fn is_live(&self, token: TokenId) -> bool {
        let entries = self.0.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.identities.values().any(|identity| identity.token == token)
    }

    /// Waits until a token is revoked or replaced.
    pub(crate) fn wait_for_revocation(&self, token: TokenId) -> impl Future<Output = ()> + use<> {
        let (tokens, mut changes) = (self.clone(), self.0.changes.subscribe());
        async move {
            // The table lives as long as `tokens`, so there is no end of changes.
            while tokens.is_live(token) && changes.changed().await.is_ok() {}
        }
    }
}

/// Authenticates a request: its [`Caller`] and its [`TokenId`] are added to the request's
/// extensions.
///
/// # Errors
/// `auth.invalid` if there is no token or it is not in force.
pub(crate) fn authenticate_request(
    tokens: &TokenRegistry,
    request: &mut Request,
) -> Result<TokenId, ApiError> {
    let presented = presented_token(request.headers());
    let Some(identity) = presented.and_then(|token| tokens.find_identity(token)) else {
        let detail = "send `Authorization: Bearer cvg_...` with the token of the data folder, or \
            another that was not revoked";
        return Err(ApiError::new(error_code::AUTH_INVALID, detail));
    };
    if let Some(admission) = request.extensions().get::<Arc<ConnectionAdmission>>() {
        // The connection no longer counts as unauthenticated, so it cannot be evicted any more.
        admission.mark_authenticated();
    }
    let Identity { caller, token } = identity;
    // Handlers get both as extensions; a handler outside this layer fails to extract them.
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(token);
    Ok(token)
}

/// Ends a response of unknown length, such as an event stream, when its token is revoked.
pub(crate) fn end_on_revocation(
    tokens: &TokenRegistry,
    token: TokenId,
    response: Response,
) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let revocation = tokens.wait_for_revocation(token);
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(revocation))))
}

/// Returns the token of a request: of `Authorization`, or of `x-api-key`, where Anthropic's SDKs
/// send it.
fn presented_token(headers: &HeaderMap) -> Option<&str> {
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let bearer = header(AUTHORIZATION).and_then(bearer_token);
    bearer.or_else(|| header(HeaderName::from_static("x-api-key")))
}

/// Returns the credentials after the scheme `Bearer`, whose case does not matter (RFC 9110, 11.1).
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

#[cfg(test)]
mod tests {
    use convergio_domain::stream::Seq;
    use convergio_domain::token::{TokenHash, TokenState};

    use super::{TokenRegistration, TokenRegistry};

    #[tokio::test]
    async fn a_table_never_goes_back_and_tells_who_waits() {
        let tenant = "acme".parse().unwrap();
        let (hash, actor) = (TokenHash::from_token("cvg_1"), "ann".parse().unwrap());
        let roles = vec!["owner".to_owned()];
        let tokens = TokenRegistry::new([TokenRegistration { hash, tenant, actor, roles }]);
        let found = tokens.find_identity("cvg_1").unwrap();
        let waits = tokio::spawn(tokens.wait_for_revocation(found.token));
        tokens.replace_tenant_tokens(&found.caller.tenant, Seq(3), &TokenState::default());
        waits.await.unwrap();
        assert_eq!(tokens.find_identity("cvg_1"), None);
        let mut earlier = TokenState::default();
        let token = convergio_domain::token::IssuedToken {
            actor: found.caller.actor.clone(),
            roles: Vec::new(),
            hash,
            issued: convergio_domain::time::Timestamp(0),
            is_revoked: false,
        };
        earlier.tokens.insert(found.token, token);
        tokens.replace_tenant_tokens(&found.caller.tenant, Seq(2), &earlier);
        assert_eq!(tokens.find_identity("cvg_1"), None, "later events are known");
    }
}
