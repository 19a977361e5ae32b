//! Idempotency keys: the same key and request give the same answer for ever.

use axum::http::HeaderMap;
use convergio_domain::request::{Accept, Request, State, request_id};
use convergio_domain::stream::StreamKey;

use crate::app::Gateway;
use crate::auth::Identity;
use crate::problem::ApiError;

/// The key of a request, when it has one.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| {
        (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
    });
    let wrong = || ApiError::invalid("Idempotency-Key must be 1 to 255 visible ASCII characters");
    key.map(Some).ok_or_else(wrong)
}

/// What a request asks for, as a hash.
pub(crate) fn request_hash(scope: &str, body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(scope.as_bytes());
    hasher.update(&[0]);
    hasher.update(body);
    hasher.finalize().to_hex().to_string()
}

/// Binds a key to a request for ever, or finds that it is bound to another one; tells whether it
/// was bound to this one before. What the request does must itself be harmless when done twice.
pub(crate) async fn bind(
    gateway: &Gateway,
    caller: &Identity,
    headers: &HeaderMap,
    scope: &str,
    body: &[u8],
) -> Result<bool, ApiError> {
    let Some(key) = key(headers)? else { return Ok(false) };
    let stream = StreamKey::request(caller.tenant.clone(), request_id(&caller.tenant, scope, key));
    let request_hash = request_hash(scope, body);
    let mut is_repeated = false;
    let command = |state: &State, _| {
        is_repeated = state.request_hash.is_some();
        (Accept { request_hash: request_hash.clone() }, Vec::new())
    };
    let context = gateway.context(caller);
    gateway.repository.execute::<Request>(&stream, &context, command).await?;
    Ok(is_repeated)
}
