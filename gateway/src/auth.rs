//! Who asks: bearer tokens, kept and compared as hashes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use convergio_domain::decider::Context;
use convergio_domain::id::{ActorId, TenantId};
use convergio_schemas::error_code;

use crate::app::Gateway;
use crate::problem::ApiError;

/// Tokens and whom they speak for.
#[derive(Clone, Default)]
pub struct Tokens {
    known: Arc<Vec<(blake3::Hash, Identity)>>,
}

/// A token, by its hash, and whom it speaks for.
#[derive(Debug, Clone)]
pub struct Token {
    /// BLAKE3 of the token.
    pub hash: [u8; 32],
    /// The tenant.
    pub tenant: TenantId,
    /// Who acts.
    pub actor: ActorId,
    /// What the actor may answer for.
    pub roles: Vec<String>,
}

impl Token {
    /// What stands for a token where tokens are kept.
    pub fn hash(token: &str) -> [u8; 32] {
        *blake3::hash(token.as_bytes()).as_bytes()
    }
}

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) tenant: TenantId,
    pub(crate) actor: ActorId,
    pub(crate) roles: Vec<String>,
}

impl Tokens {
    /// These tokens and no others.
    pub fn new(tokens: impl IntoIterator<Item = Token>) -> Self {
        let known = tokens.into_iter().map(|Token { hash, tenant, actor, roles }| {
            (blake3::Hash::from_bytes(hash), Identity { tenant, actor, roles })
        });
        Self { known: Arc::new(known.collect()) }
    }

    /// Whom a token speaks for. Hashes compare in constant time.
    fn find(&self, token: &str) -> Option<&Identity> {
        let hash = blake3::hash(token.as_bytes());
        self.known.iter().find(|(known, _)| *known == hash).map(|(_, identity)| identity)
    }
}

impl Gateway {
    /// The context of a decision asked for by a caller.
    pub(crate) fn context(&self, caller: &Identity) -> Context {
        Context { now: self.repository.clock().now(), actor: caller.actor.clone() }
    }
}

/// Lets known callers in.
pub(crate) async fn authenticate(
    State(gateway): State<Gateway>,
    mut request: Request,
    next: Next,
) -> Response {
    let identity = token(request.headers()).and_then(|token| gateway.tokens.find(token)).cloned();
    match identity {
        Some(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        None => {
            let detail = "send `Authorization: Bearer cvg_...` with the token of the data folder";
            ApiError::new(error_code::AUTH_INVALID, detail).into_response()
        }
    }
}

/// The token of a request. Anthropic's SDKs send what they take for a key in a header of their own.
fn token(headers: &HeaderMap) -> Option<&str> {
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let bearer = header(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    bearer.or_else(|| header(HeaderName::from_static("x-api-key")))
}
