//! Extractor of a JSON body that rounds no number.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use convergio_domain::json::check_whole_numbers;
use futures_util::FutureExt;
use serde::de::DeserializeOwned;

use crate::body_memory::run_blocking_if_large;
use crate::problem::ApiError;

/// A request's JSON body. Integers beyond 64 bits are rejected with their position, because serde
/// would read them as floating point.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), state).await;
        let bytes = bytes.map_err(JsonRejection::from)?;
        let request = Request::from_parts(parts, Body::from(bytes.clone()));
        let reading = Json::<T>::from_request(request, state);
        // The body is complete, so parsing never waits; it only takes processor time.
        let value = run_blocking_if_large(bytes.len(), || reading.now_or_never());
        let Json(value) =
            value.ok_or_else(|| ApiError::invalid_request("the body broke off"))??;
        run_blocking_if_large(bytes.len(), || check_whole_numbers(&bytes))
            .map_err(|error| ApiError::invalid_request(error.to_string()))?;
        Ok(Self(value))
    }
}
