//! The executor's role: models, slots and the executor itself.

use std::sync::Arc;

use convergio_domain::id::ExecutorId;
use convergio_evaluation::Evaluator;
use convergio_eventstore::SlotSet;
use convergio_eventstore::jetstream::SlotLease;
use convergio_executor::catalog::DetectedServer;
use convergio_executor::memory::MemoryPort;
use convergio_executor::{Executor, ExecutorConfig};
use convergio_local_models::managed_model::{self, ManagedModel, ModelAccess};
use tokio::sync::watch;
use uuid::Uuid;

use super::SharedParts;
use crate::config::ServerConfig;
use crate::log_location::OpenLog;
use crate::model_servers::{find_model_servers, print_detected};
use crate::model_setup::ModelSetup;
use crate::recall_adapter::RecallAdapter;

/// A started executor.
pub(crate) struct ExecutorTask {
    executor: Executor,
    /// Lease of this executor's slots, in a cluster.
    slot_lease: Option<SlotLease>,
}

/// Finds the model servers if the role executes runs: those that were named, else those detected,
/// else the managed one, which is started.
pub(crate) async fn find_or_start_models(
    config: &ServerConfig,
) -> anyhow::Result<(Vec<DetectedServer>, Option<ManagedModel>)> {
    if !config.role.executes_runs() {
        return Ok((Vec::new(), None));
    }
    let model_urls = &config.executor.model_urls;
    let found = find_model_servers(model_urls).await?;
    print_detected(model_urls, &found);
    if !found.is_empty() || !model_urls.is_empty() {
        return Ok((found, None));
    }
    match managed_model::installed_folder() {
        Some(folder) => {
            let log = config.data.as_path().join("model.log");
            let model =
                managed_model::start_managed_model(&folder, &log, ModelAccess::Starter).await?;
            Ok((vec![model.server.clone()], Some(model)))
        }
        None => Ok((Vec::new(), None)),
    }
}

/// Starts the executor, if the role executes runs.
pub(crate) fn start_executor(
    config: &ServerConfig,
    parts: &SharedParts,
    models: &ModelSetup,
    evaluator: &Evaluator,
) -> Option<ExecutorTask> {
    if !config.role.executes_runs() {
        return None;
    }
    let slot_lease = lease_slots(parts);
    let slots = slot_lease.as_ref().map(SlotLease::watch_slots);
    let executor = Executor::start(
        build_executor_config(config, parts, slots, evaluator),
        parts.repository.clone(),
        Arc::clone(&models.catalog),
        parts.live.clone(),
        Arc::clone(&models.prices),
    );
    Some(ExecutorTask { executor, slot_lease })
}

/// Leases slots of the work on a log in a cluster, which several executors share.
fn lease_slots(parts: &SharedParts) -> Option<SlotLease> {
    match &parts.opened_log {
        OpenLog::Embedded(_) => None,
        OpenLog::Cluster(log) => Some(log.lease_slots(parts.health.component_health("slots"))),
    }
}

fn build_executor_config(
    server: &ServerConfig,
    parts: &SharedParts,
    slots: Option<watch::Receiver<SlotSet>>,
    evaluator: &Evaluator,
) -> ExecutorConfig {
    let mut config = ExecutorConfig::new(ExecutorId(Uuid::now_v7()));
    config.memory = MemoryPort(Some(Arc::new(RecallAdapter(Arc::clone(&parts.memories)))));
    if let Some(slots) = slots {
        config.slot_set = slots;
    }
    server.executor.model_calls.apply_to_config(&mut config);
    config.evaluator = evaluator.clone();
    config.health = parts.health.component_health("executor");
    config
}

impl ExecutorTask {
    /// Waits until the executor ends, which it should not, and returns the reason.
    pub(crate) async fn wait_for_failure(&mut self) -> anyhow::Error {
        let error = self.executor.wait_for_failure().await;
        anyhow::anyhow!("the executor ended: {error}")
    }

    /// Starts no new step and lets steps under way finish within a grace period.
    pub(crate) async fn shut_down(self) -> anyhow::Result<()> {
        self.executor.shut_down().await?;
        // Slots go back before the log closes: another executor takes them over without waiting for
        // the lease to expire.
        if let Some(slots) = self.slot_lease {
            slots.release_slots().await;
        }
        Ok(())
    }
}
