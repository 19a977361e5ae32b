//! Which signals a run's graph waits for, kept by version: a version never changes.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use convergio_domain::id::{GraphId, GraphVersion, SignalName};
use convergio_domain::run::{Run, Signal, check_signal};
use convergio_domain::stream::StreamKey;

use super::runs::manifest;
use crate::app::Gateway;
use crate::auth::Identity;
use crate::problem::ApiError;

/// Versions that are kept at most.
const VERSIONS_LIMIT: usize = 1000;

type Names = Arc<[SignalName]>;

static KNOWN: LazyLock<Mutex<BTreeMap<GraphVersion, Names>>> = LazyLock::new(Mutex::default);

/// Holds a signal against the graph of its run. Where there is no such run, or its manifest cannot
/// be had any more, the command itself tells what follows.
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
    if known.len() >= VERSIONS_LIMIT {
        known.clear();
    }
    known.insert(version.clone(), Arc::clone(&names));
    Some(names)
}

fn known() -> MutexGuard<'static, BTreeMap<GraphVersion, Names>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
