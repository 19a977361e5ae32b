//! Names of the signals that a run's graph waits for, cached by graph version, which never changes.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use convergio_domain::id::{GraphId, GraphVersion, SignalName};
use convergio_domain::run::{Run, Signal, check_signal};
use convergio_domain::stream::StreamKey;

use super::runs::manifest;
use crate::app::Gateway;
use crate::auth::Identity;
use crate::problem::ApiError;

/// Maximum versions in the cache.
const VERSIONS_LIMIT: usize = 1000;

/// The signal names of one version.
type Names = Arc<[SignalName]>;

/// The cache, for all tenants: a version is a hash of its manifest, so equal versions are equal
/// graphs.
static KNOWN: LazyLock<Mutex<BTreeMap<GraphVersion, Names>>> = LazyLock::new(Mutex::default);

/// Rejects a signal that no node of the run's graph waits for. If the run or its manifest is
/// missing, the signal's own command reports it.
pub(super) async fn check_signal_of_run(
    gateway: &Gateway,
    caller: &Identity,
    run: &StreamKey,
    signal: &Signal,
) -> Result<(), ApiError> {
    let state = gateway.repository.load::<Run>(run).await?.state;
    let Some((graph, version)) = &state.graph else { return Ok(()) };
    match signal_names(gateway, caller, *graph, version).await {
        Some(names) => check_signal(&state, signal, &names).map_err(ApiError::from),
        None => Ok(()),
    }
}

async fn signal_names(
    gateway: &Gateway,
    caller: &Identity,
    graph: GraphId,
    version: &GraphVersion,
) -> Option<Names> {
    let names = known().get(version).cloned();
    if names.is_some() {
        return names;
    }
    let (_, manifest) = manifest(gateway, caller, graph, Some(version.as_str())).await.ok()?;
    let names = Names::from(manifest.signal_names());
    let mut known = known();
    // Cleared as a whole: entries are cheap to load again, and this keeps no order of use.
    if known.len() >= VERSIONS_LIMIT {
        known.clear();
    }
    known.insert(version.clone(), Arc::clone(&names));
    Some(names)
}

fn known() -> MutexGuard<'static, BTreeMap<GraphVersion, Names>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
