//! Idempotency keys: what a key is bound to, and which things it names.

use axum::http::HeaderMap;
use convergio_domain::id::RunId;
use convergio_domain::request::{self, Request};
use convergio_domain::run::{Rejection, Run, RunState};
use convergio_domain::stream::StreamKey;
use uuid::Uuid;

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

/// The id under which streams remember the request, when it has a key.
pub(crate) fn request_id(caller: &Identity, headers: &HeaderMap) -> Result<Option<Uuid>, ApiError> {
    Ok(key(headers)?.map(|key| request::request_id(&caller.tenant, key)))
}

/// Refuses a request whose key a log of before answers were kept has bound to another one of the
/// same scope.
pub(crate) async fn check_scoped_key(
    gateway: &Gateway,
    caller: &Identity,
    headers: &HeaderMap,
    scope: &str,
    body: &[u8],
) -> Result<(), ApiError> {
    let Some(key) = key(headers)? else { return Ok(()) };
    let id = request::scoped_request_id(&caller.tenant, scope, key);
    let stream = StreamKey::request(caller.tenant.clone(), id);
    let bound = gateway.repository.load::<Request>(&stream).await?.state;
    bound.is_bound_to(&request_hash(scope, body))?;
    Ok(())
}

/// The run whose id comes from a key, if the same request has created it already.
pub(crate) async fn find_run(
    gateway: &Gateway,
    caller: &Identity,
    run: RunId,
    request_hash: &str,
) -> Result<Option<RunState>, ApiError> {
    let stream = StreamKey::run(caller.tenant.clone(), run);
    if gateway.repository.log().head(&stream).await?.is_none() {
        return Ok(None);
    }
    let state = gateway.repository.load::<Run>(&stream).await?.state;
    if state.is_imported {
        return Err(Rejection::Imported.into());
    }
    if state.request_hash == request_hash {
        return Ok(Some(state));
    }
    Err(Rejection::IdempotencyMismatch.into())
}
