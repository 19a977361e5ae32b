//! Idempotency keys: parsing, request hashes, and the objects whose ids derive from a key.

use axum::http::HeaderMap;
use convergio_domain::id::RunId;
use convergio_domain::request::{self, RequestNoun};
use convergio_domain::run::{Run, RunRejection, RunState};
use convergio_domain::stream::StreamKey;
use uuid::Uuid;

use crate::identity::Identity;
use crate::problem::ApiError;
use crate::state::Gateway;

/// Returns the `Idempotency-Key` header, if there is one.
///
/// # Errors
/// `request.invalid` if it is not 1 to 255 visible ASCII characters.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| {
        (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
    });
    let invalid_key =
        || ApiError::invalid_request("Idempotency-Key must be 1 to 255 visible ASCII characters");
    key.map(Some).ok_or_else(invalid_key)
}

/// Hashes a request's scope and body (BLAKE3, hex) to tell a repetition from another request.
pub(crate) fn request_hash(scope: &str, body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(scope.as_bytes());
    // Keeps scope and body apart.
    hasher.update(&[0]);
    hasher.update(body);
    hasher.finalize().to_hex().to_string()
}

/// Returns the id under which streams remember the request, if it has a key.
pub(crate) fn request_id(caller: &Identity, headers: &HeaderMap) -> Result<Option<Uuid>, ApiError> {
    Ok(idempotency_key(headers)?.map(|key| request::request_id(&caller.tenant, key)))
}

/// Rejects a key that an older log has bound to another request of the same scope. Logs written
/// before answers were recorded bound keys for each scope.
pub(crate) async fn check_scoped_key(
    gateway: &Gateway,
    caller: &Identity,
    headers: &HeaderMap,
    scope: &str,
    body: &[u8],
) -> Result<(), ApiError> {
    let Some(key) = idempotency_key(headers)? else { return Ok(()) };
    let id = request::scoped_request_id(&caller.tenant, scope, key);
    // New logs have no such stream: the loaded state is then unbound.
    let stream = StreamKey::for_request(caller.tenant.clone(), id);
    let bound = gateway.repository.load::<RequestNoun>(&stream).await?.state;
    bound.is_bound_to(&request_hash(scope, body))?;
    Ok(())
}

/// Finds the run whose id derives from a key, if the same request has created it already.
///
/// # Errors
/// A rejection if the run is an import or belongs to another request.
pub(crate) async fn find_run(
    gateway: &Gateway,
    caller: &Identity,
    run: RunId,
    request_hash: &str,
) -> Result<Option<RunState>, ApiError> {
    let stream = StreamKey::for_run(caller.tenant.clone(), run);
    if gateway.repository.event_log().stream_head(&stream).await?.is_none() {
        return Ok(None);
    }
    let state = gateway.repository.load::<Run>(&stream).await?.state;
    if state.is_imported {
        return Err(RunRejection::Imported.into());
    }
    if state.request_hash == request_hash {
        return Ok(Some(state));
    }
    Err(RunRejection::IdempotencyMismatch.into())
}
