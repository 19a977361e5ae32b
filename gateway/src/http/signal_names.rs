//! Names of the signals that a run's graph waits for, cached by graph version, which never changes.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use convergio_domain::id::{GraphId, GraphVersion, SignalName};
use convergio_domain::run::{Run, SendSignal, check_signal};
use convergio_domain::stream::StreamKey;

use super::run_lookup::load_manifest;
use crate::identity::Identity;
use crate::problem::ApiError;
use crate::state::Gateway;

/// Maximum versions in the cache.
const VERSIONS_LIMIT: usize = 1000;

/// The signal names of one version.
type SignalNames = Arc<[SignalName]>;

/// The cache, for all tenants: a version is a hash of its manifest, so equal versions are equal
/// graphs.
static CACHED_NAMES: LazyLock<Mutex<BTreeMap<GraphVersion, SignalNames>>> =
    LazyLock::new(Mutex::default);

/// Rejects a signal that no node of the run's graph waits for. If the run or its manifest is
/// missing, the signal's own command reports it.
pub(super) async fn check_signal_of_run(
    gateway: &Gateway,
    caller: &Identity,
    run: &StreamKey,
    signal: &SendSignal,
) -> Result<(), ApiError> {
    let state = gateway.repository.load::<Run>(run).await?.state;
    let Some((graph, version)) = &state.graph else { return Ok(()) };
    match load_signal_names(gateway, caller, *graph, version).await {
        Some(names) => check_signal(&state, signal, &names).map_err(ApiError::from),
        None => Ok(()),
    }
}

async fn load_signal_names(
    gateway: &Gateway,
    caller: &Identity,
    graph: GraphId,
    version: &GraphVersion,
) -> Option<SignalNames> {
    let names = lock_cache().get(version).cloned();
    if names.is_some() {
        return names;
    }
    let (_, manifest) = load_manifest(gateway, caller, graph, Some(version.as_str())).await.ok()?;
    let names = SignalNames::from(manifest.signal_names());
    let mut cache = lock_cache();
    // Cleared as a whole: entries are cheap to load again, and this keeps no order of use.
    if cache.len() >= VERSIONS_LIMIT {
        cache.clear();
    }
    cache.insert(version.clone(), Arc::clone(&names));
    Some(names)
}

fn lock_cache() -> MutexGuard<'static, BTreeMap<GraphVersion, SignalNames>> {
    CACHED_NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}
