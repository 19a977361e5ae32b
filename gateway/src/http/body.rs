//! Bodies of requests.

use convergio_domain::json::read_json;
use serde::de::DeserializeOwned;

use crate::problem::ApiError;

/// Reads a body that may be empty.
pub(super) fn read_optional_body<T: DeserializeOwned + Default>(
    body: &[u8],
) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    read_body(body)
}

/// Reads a JSON body.
pub(super) fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    read_json(body).map_err(|error| ApiError::invalid_request(error.to_string()))
}
