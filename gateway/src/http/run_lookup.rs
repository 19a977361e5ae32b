//! Runs by what a request names them.

use convergio_application::Caller;
use convergio_domain::id::RunId;
use convergio_domain::stream::StreamKey;

use crate::problem::ApiError;

/// Reads the id of a run; a text that is none names no run.
pub(super) fn parse_run(id: &str) -> Result<RunId, ApiError> {
    id.parse().map_err(|_| ApiError::not_found("run"))
}

/// Returns the stream of a run in the caller's tenant; a foreign run is thus never found.
pub(super) fn run_stream(caller: &Caller, id: &str) -> Result<StreamKey, ApiError> {
    Ok(caller.run_stream(parse_run(id)?))
}

/// True if an event ends a run for its watchers.
pub(super) fn is_run_end(kind: &str) -> bool {
    matches!(kind, "run.completed.v1" | "run.failed.v1" | "run.cancelled.v1")
}
