//! Runs and manifests by what a request names them.

use convergio_domain::graph::GraphNoun;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{GraphId, GraphVersion, RunId};
use convergio_domain::stream::StreamKey;

use crate::identity::Identity;
use crate::problem::ApiError;
use crate::state::Gateway;

/// Returns the stream of a run in the caller's tenant; a foreign run is thus never found.
pub(super) fn run_stream(caller: &Identity, id: &str) -> Result<StreamKey, ApiError> {
    let run: RunId = id.parse().map_err(|_| ApiError::not_found("run"))?;
    Ok(StreamKey::for_run(caller.tenant.clone(), run))
}

/// Loads the manifest of a version, or of the latest one.
pub(super) async fn load_manifest(
    gateway: &Gateway,
    caller: &Identity,
    graph: GraphId,
    version: Option<&str>,
) -> Result<(GraphVersion, Graph), ApiError> {
    let stream = StreamKey::for_graph(caller.tenant.clone(), graph);
    let loaded = gateway.repository.load::<GraphNoun>(&stream).await?;
    let found_version = match version {
        Some(version) => loaded.state.versions.keys().find(|known| known.as_str() == version),
        None => loaded.state.latest.as_ref(),
    };
    let found_version = found_version.ok_or_else(|| ApiError::not_found("graph or version"))?;
    let reference = loaded.state.versions.get(found_version);
    let reference = reference.ok_or_else(|| ApiError::not_found("graph or version"))?;
    let bytes = gateway.repository.read_payload(&stream, *reference).await?;
    let bytes = bytes.ok_or_else(|| ApiError::not_found("manifest: it was erased"))?;
    let manifest = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::invalid_request(format!("the stored manifest: {error}")))?;
    Ok((found_version.clone(), manifest))
}

/// True if an event ends a run for its watchers.
pub(super) fn is_run_end(kind: &str) -> bool {
    matches!(kind, "run.completed.v1" | "run.failed.v1" | "run.cancelled.v1")
}
