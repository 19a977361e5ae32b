//! Names of the signals that a run's graph waits for, cached by graph version, which never changes.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use convergio_domain::id::{GraphId, GraphVersion, RunId, SignalName};
use convergio_domain::run::{Run, SendSignal, check_signal};

use crate::caller::Caller;
use crate::error::UseCaseError;
use crate::use_cases::UseCases;

/// Maximum versions in the cache.
const VERSIONS_LIMIT: usize = 1000;

/// The signal names of one version.
type SignalNames = Arc<[SignalName]>;

/// The cache, for all tenants: a version is a hash of its manifest, so equal versions are equal
/// graphs.
static CACHED_NAMES: LazyLock<Mutex<BTreeMap<GraphVersion, SignalNames>>> =
    LazyLock::new(Mutex::default);

impl UseCases<'_> {
    /// Rejects a signal that no node of the run's graph waits for. If the run or its manifest is
    /// missing, the signal's own command reports it.
    pub(crate) async fn check_signal(
        self,
        caller: &Caller,
        run: RunId,
        signal: &SendSignal,
    ) -> Result<(), UseCaseError> {
        let state = self.repository.load::<Run>(&caller.run_stream(run)).await?.state;
        let Some((graph, version)) = &state.graph else { return Ok(()) };
        match self.load_signal_names(caller, *graph, version).await {
            Some(names) => Ok(check_signal(&state, signal, &names)?),
            None => Ok(()),
        }
    }

    async fn load_signal_names(
        self,
        caller: &Caller,
        graph: GraphId,
        version: &GraphVersion,
    ) -> Option<SignalNames> {
        let names = lock_cache().get(version).cloned();
        if names.is_some() {
            return names;
        }
        let manifest = self.load_manifest(&caller.tenant, graph, Some(version.as_str())).await;
        let names = SignalNames::from(manifest.ok()?.1.signal_names());
        let mut cache = lock_cache();
        // Cleared as a whole: entries are cheap to load again, and this keeps no order of use.
        if cache.len() >= VERSIONS_LIMIT {
            cache.clear();
        }
        cache.insert(version.clone(), Arc::clone(&names));
        Some(names)
    }
}

fn lock_cache() -> MutexGuard<'static, BTreeMap<GraphVersion, SignalNames>> {
    CACHED_NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}
