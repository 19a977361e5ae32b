//! Who asks: bearer tokens, kept and compared as hashes.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use convergio_domain::decider::Context;
use convergio_domain::id::{ActorId, TenantId, TokenId};
use convergio_domain::stream::Seq;
use convergio_domain::token::{self, TokenHash};
use convergio_schemas::error_code;
use futures_util::StreamExt;
use tokio::sync::watch;

use crate::app::Gateway;
use crate::problem::ApiError;
use crate::unauthenticated::Admission;

/// Tokens and whom they speak for. All clones are one table.
#[derive(Clone)]
pub struct Tokens(Arc<Table>);

struct Table {
    known: RwLock<Known>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    identities: HashMap<TokenHash, Identity>,
    /// How far the log was read for a tenant.
    read: HashMap<TenantId, Seq>,
}

/// A token, by its hash, and whom it speaks for.
#[derive(Debug, Clone)]
pub struct Token {
    /// BLAKE3 of the token.
    pub hash: TokenHash,
    /// The tenant.
    pub tenant: TenantId,
    /// Who acts.
    pub actor: ActorId,
    /// What the actor may answer for.
    pub roles: Vec<String>,
}

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) tenant: TenantId,
    pub(crate) actor: ActorId,
    pub(crate) roles: Vec<String>,
    /// The token that was shown.
    pub(crate) token: TokenId,
}

impl Default for Tokens {
    fn default() -> Self {
        Self::new([])
    }
}

impl Tokens {
    /// These tokens and no others, until the log says otherwise.
    pub fn new(tokens: impl IntoIterator<Item = Token>) -> Self {
        let identities = tokens.into_iter().map(|Token { hash, tenant, actor, roles }| {
            (hash, Identity { tenant, actor, roles, token: TokenId::of(&hash) })
        });
        let known = Known { identities: identities.collect(), read: HashMap::new() };
        Self(Arc::new(Table { known: RwLock::new(known), changes: watch::Sender::new(()) }))
    }

    /// Takes what the log says of a tenant's tokens up to an event, unless later ones are known.
    pub fn replace(&self, tenant: &TenantId, seq: Seq, state: &token::State) {
        {
            let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
            if known.read.get(tenant).is_some_and(|read| *read > seq) {
                return;
            }
            known.read.insert(tenant.clone(), seq);
            known.identities.retain(|_, identity| identity.tenant != *tenant);
            let identity = |(id, token): (TokenId, &token::Token)| Identity {
                tenant: tenant.clone(),
                actor: token.actor.clone(),
                roles: token.roles.iter().map(ToString::to_string).collect(),
                token: id,
            };
            let live = state.live().map(|(id, token)| (token.hash, identity((id, token))));
            known.identities.extend(live);
        }
        self.0.changes.send_replace(());
    }

    /// Whom a token speaks for. Who guesses learns nothing from the time that it takes: what is
    /// looked up is a hash.
    fn find(&self, token: &str) -> Option<Identity> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.identities.get(&TokenHash::of(token)).cloned()
    }

    fn is_live(&self, token: TokenId) -> bool {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.identities.values().any(|identity| identity.token == token)
    }

    /// Waits until a token opens nothing any more.
    pub(crate) fn revocation(&self, token: TokenId) -> impl Future<Output = ()> + use<> {
        let (tokens, mut changes) = (self.clone(), self.0.changes.subscribe());
        async move {
            // The table lives as long as `tokens`, so there is no end of changes.
            while tokens.is_live(token) && changes.changed().await.is_ok() {}
        }
    }
}

impl Gateway {
    /// The context of a decision asked for by a caller.
    pub(crate) fn context(&self, caller: &Identity) -> Context {
        Context { now: self.repository.clock().now(), actor: caller.actor.clone() }
    }
}

/// Lets a known caller in: the request tells its handler who asks. Gives the token that was shown.
pub(crate) fn authenticate(tokens: &Tokens, request: &mut Request) -> Result<TokenId, ApiError> {
    let shown = shown_token(request.headers());
    let Some(identity) = shown.and_then(|token| tokens.find(token)) else {
        let detail = "send `Authorization: Bearer cvg_...` with the token of the data folder, or \
            another that was not revoked";
        return Err(ApiError::new(error_code::AUTH_INVALID, detail));
    };
    if let Some(admission) = request.extensions().get::<Arc<Admission>>() {
        admission.authenticate();
    }
    let token = identity.token;
    request.extensions_mut().insert(identity);
    Ok(token)
}

/// An answer without an end that is known, as a stream of events, ends when its token is revoked.
pub(crate) fn end_with_token(tokens: &Tokens, token: TokenId, response: Response) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let revocation = tokens.revocation(token);
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(revocation))))
}

/// The token of a request. Anthropic's SDKs send what they take for a key in a header of their own.
fn shown_token(headers: &HeaderMap) -> Option<&str> {
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let bearer = header(AUTHORIZATION).and_then(bearer_token);
    bearer.or_else(|| header(HeaderName::from_static("x-api-key")))
}

/// What follows the scheme `Bearer`, whose case does not matter (RFC 9110, 11.1).
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

#[cfg(test)]
mod tests {
    use convergio_domain::stream::Seq;
    use convergio_domain::token::{State, TokenHash};

    use super::{Token, Tokens};

    #[tokio::test]
    async fn a_table_never_goes_back_and_tells_who_waits() {
        let tenant = "acme".parse().unwrap();
        let (hash, actor) = (TokenHash::of("cvg_1"), "ann".parse().unwrap());
        let roles = vec!["owner".to_owned()];
        let tokens = Tokens::new([Token { hash, tenant, actor, roles }]);
        let found = tokens.find("cvg_1").unwrap();
        let waits = tokio::spawn(tokens.revocation(found.token));
        tokens.replace(&found.tenant, Seq(3), &State::default());
        waits.await.unwrap();
        assert_eq!(tokens.find("cvg_1"), None);
        let mut earlier = State::default();
        let token = convergio_domain::token::Token {
            actor: found.actor.clone(),
            roles: Vec::new(),
            hash,
            issued: convergio_domain::time::Timestamp(0),
            is_revoked: false,
        };
        earlier.tokens.insert(found.token, token);
        tokens.replace(&found.tenant, Seq(2), &earlier);
        assert_eq!(tokens.find("cvg_1"), None, "later events are known");
    }
}
