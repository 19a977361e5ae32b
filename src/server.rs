//! The composition root: starts the roles of a process on the log of its folder or of a cluster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use convergio_domain::id::{ExecutorId, TenantId};
use convergio_evaluation::Evaluator;
use convergio_evaluation::pool::WorkerPool;
use convergio_eventstore::jetstream::SlotLease;
use convergio_eventstore::{
    CheckpointFolder, Durability, EventLog, HealthRegistry, LiveHub, Repository, SlotSet,
    SteadyClock, WallClock,
};
use convergio_executor::catalog::{DetectedServer, ModelCatalog, ModelOffer};
use convergio_executor::memory::MemoryPort;
use convergio_executor::{Executor, ExecutorConfig, tool};
use convergio_gateway::{
    Gateway, ModelDirectory, ModelEntry, ServeOptions, TokenRegistry, follow_tokens,
};
use convergio_projections::{MemoryIndexes, ProjectionError, Projections, ReadModelStore};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::cli::{DoorOptions, EvaluationLimits, ListenOptions, ModelCallLimits, ServerRole};
use crate::data_dir::{DataDir, ServerRecord};
use crate::exit;
use crate::front_runtime::FrontRuntime;
use crate::log_location::{LogLocation, OpenLog};
use crate::managed_model::{self, ManagedModel, ModelAccess};
use crate::model_servers::{find_model_servers, print_detected};
use crate::model_setup::ModelSetup;
use crate::owner_tokens;
use crate::recall_adapter::RecallAdapter;
use crate::replayer::LogReplayer;

/// Configuration of a server.
pub(crate) struct ServerConfig {
    pub(crate) data: DataDir,
    pub(crate) listen: ListenOptions,
    /// Location of the read models.
    pub(crate) read_models: ReadModelStore,
    /// URLs of model servers, in place of those detected on the machine.
    pub(crate) model_urls: Vec<String>,
    /// Location of the log.
    pub(crate) log_location: LogLocation,
    /// Maximum time to wait for a folder that another process holds.
    pub(crate) folder_patience: Duration,
    /// Role of this process.
    pub(crate) role: ServerRole,
    /// Limits on concurrent model calls.
    pub(crate) model_calls: ModelCallLimits,
    /// Limits of one call at a front door.
    pub(crate) doors: DoorOptions,
    /// Runtime that serves connections.
    pub(crate) front_runtime: FrontRuntime,
    /// Limits of evaluations of untrusted text.
    pub(crate) evaluation: EvaluationLimits,
}

/// A server that runs in this process.
pub(crate) struct InProcessServer {
    /// URL of the gateway; empty without one.
    pub(crate) url: String,
    /// Token of the data folder's owner.
    pub(crate) token: Zeroizing<String>,
    pub(crate) model_servers: Vec<DetectedServer>,
    pub(crate) durability: Durability,
    log: Arc<dyn EventLog>,
    clock: Arc<SteadyClock>,
    data: DataDir,
    executor: Option<Executor>,
    /// Lease of this executor's slots, in a cluster.
    slot_lease: Option<SlotLease>,
    stop: watch::Sender<bool>,
    gateway: Option<JoinHandle<()>>,
    _front_runtime: FrontRuntime,
    projector: Option<ProjectorTask>,
    _managed_model: Option<ManagedModel>,
}

/// The projector's task and its stop signal.
struct ProjectorTask {
    task: JoinHandle<Result<(), ProjectionError>>,
    stop: oneshot::Sender<()>,
}

async fn open_log(config: &ServerConfig) -> anyhow::Result<OpenLog> {
    config.log_location.open_with_patience(&config.data, config.folder_patience).await
}

/// Leases slots of the work on a log in a cluster, which several executors share.
fn lease_slots(open: &OpenLog, health: &HealthRegistry) -> Option<SlotLease> {
    match open {
        OpenLog::Embedded(_) => None,
        OpenLog::Cluster(log) => Some(log.lease_slots(health.component_health("slots"))),
    }
}

/// Opens read models; an error names their location.
pub(crate) async fn open_read_models(store: &ReadModelStore) -> anyhow::Result<Projections> {
    Projections::open(store.clone()).await.map_err(|error| {
        let location = match store {
            ReadModelStore::File(file) => file.display().to_string(),
            // The URL may hold a password.
            ReadModelStore::Server(_) => {
                "the PostgreSQL server (--database, DATABASE_URL)".to_owned()
            }
        };
        exit::unavailable_error(format!("cannot use the read models in {location}: {error}"))
    })
}

/// Serves the gateway and announces it in `server.json`.
fn announce_gateway(
    config: &ServerConfig,
    listeners: FrontListeners,
    gateway: Gateway,
) -> anyhow::Result<JoinHandle<()>> {
    let (url, stop) = (listeners.local_url()?, gateway.stop.clone());
    let serving = listeners.serve_gateway(gateway, stop, &config.front_runtime)?;
    // Announced last: whoever reads `server.json` finds a server that answers.
    config.data.write_server_record(&ServerRecord { url, pid: std::process::id() })?;
    Ok(serving)
}

impl InProcessServer {
    /// Starts the parts that the role asks for, in the order in which they depend on each other.
    pub(crate) async fn start_server(config: ServerConfig) -> anyhow::Result<Self> {
        let role = config.role;
        // First the step that fails for reasons of its own, an address in use: nothing needs
        // undoing.
        let listeners = open_listeners(&config).await?;
        let opened_log = open_log(&config).await?;
        let log = opened_log.as_event_log();
        let (repository, clock) = open_repository(&config.data, &log).await?;
        let live = LiveHub::new();
        let health = HealthRegistry::default();
        let (stop, stop_receiver) = watch::channel(false);
        // Tokens are loaded before listeners serve, so that the first request is not refused.
        let (token, tokens) = load_tokens(&config, &repository, &health, &stop_receiver).await?;
        let memories = Arc::new(MemoryIndexes::new(Arc::clone(&log)));
        let projections = open_read_models_for_role(&config).await?;
        let queries = projections.as_ref().map(Projections::query_handle);
        // A log in a folder has one process, which therefore projects whatever its role.
        let is_embedded = matches!(config.log_location, LogLocation::Folder);
        let runs_projector = is_embedded || role.runs_projector(&config.read_models);
        let projector = projections.filter(|_| runs_projector);
        let projector =
            projector.map(|models| ProjectorTask::spawn_projector(models, &log, &health));
        let (mut slot_lease, mut executor) = (None, None);
        let (model_servers, managed_model) = find_or_start_models(&config).await?;
        let ModelSetup { catalog, prices } = ModelSetup::read(&config.data, &model_servers)?;
        let catalog = Arc::new(CatalogDirectory(catalog));
        let evaluator = start_evaluator(&config)?;
        if role.executes_runs() {
            slot_lease = lease_slots(&opened_log, &health);
            let share = slot_lease.as_ref().map(SlotLease::watch_slots);
            let executor_config =
                build_executor_config(&memories, share, &config, &health, &evaluator);
            let (log, models) = (repository.clone(), Arc::clone(&catalog.0));
            executor = Some(Executor::start(executor_config, log, models, live.clone(), prices));
        }
        let (mut url, mut gateway) = (String::new(), None);
        if let (Some(listeners), Some(queries)) = (listeners, queries) {
            url.clone_from(&listeners.url);
            let gateway_parts = Gateway {
                replayer: Arc::new(LogReplayer::new(&repository, &queries, evaluator.clone())),
                memories: Arc::clone(&memories),
                repository,
                queries,
                health,
                live_notes: live,
                evaluator,
                tokens,
                models: catalog,
                compat: config.doors.to_settings(),
                stop: stop_receiver,
            };
            gateway = Some(announce_gateway(&config, listeners, gateway_parts)?);
        }
        Ok(Self {
            url,
            token,
            model_servers,
            durability: log.durability(),
            log,
            clock,
            data: config.data,
            executor,
            slot_lease,
            stop,
            gateway,
            _front_runtime: config.front_runtime,
            projector,
            _managed_model: managed_model,
        })
    }

    /// Waits until a part of the server ends, which none should, and returns the reason.
    pub(crate) async fn wait_for_failure(&mut self) -> anyhow::Error {
        let gateway = async {
            match &mut self.gateway {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        let projector = async {
            match &mut self.projector {
                Some(projector) => (&mut projector.task).await,
                None => std::future::pending().await,
            }
        };
        let executor = async {
            match &mut self.executor {
                Some(executor) => executor.wait_for_failure().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = projector => match ended {
                Ok(Err(error)) => anyhow::anyhow!("the projections ended: {error}"),
                _ => anyhow::anyhow!("the projections ended"),
            },
            _ = gateway => anyhow::anyhow!("the gateway ended"),
            error = executor => anyhow::anyhow!("the executor ended: {error}"),
        }
    }

    /// True if no run is due now or later: nothing goes on without an event from outside.
    pub(crate) async fn is_idle(&self) -> anyhow::Result<bool> {
        let now = self.clock.now();
        let due = self.log.due_streams(now, 1).await?;
        Ok(due.is_empty() && self.log.next_due_time(now).await?.is_none())
    }

    /// Shuts down in order: no new step starts, steps under way finish within a grace period,
    /// everything is flushed.
    pub(crate) async fn shutdown_server(self) -> anyhow::Result<()> {
        self.data.remove_server_record();
        // Event streams end first, so that clients do not wait for events that will not come.
        self.stop.send_replace(true);
        if let Some(executor) = self.executor {
            executor.shut_down().await?;
        }
        // Slots go back before the log closes: another executor takes them over without waiting for
        // the lease to expire.
        if let Some(shares) = self.slot_lease {
            shares.release_slots().await;
        }
        // A part that has ended already was reported by `wait_for_failure`.
        if let Some(gateway) = self.gateway.filter(|task| !task.is_finished()) {
            let _gateway = gateway.await;
        }
        // The projector is stopped last; records that it has not applied are applied by the next
        // start.
        if let Some(projector) = self.projector.filter(|projector| !projector.task.is_finished()) {
            let _stopping = projector.stop.send(());
            let _projector = projector.task.await;
        }
        self.log.close().await?;
        Ok(())
    }
}

impl ProjectorTask {
    fn spawn_projector(
        models: Projections,
        log: &Arc<dyn EventLog>,
        health: &HealthRegistry,
    ) -> Self {
        let models = models.with_health(health.component_health("projector"));
        let (log, (stop, stopped)) = (Arc::clone(log), oneshot::channel());
        let task = tokio::spawn(async move { models.run(log, stopped).await });
        Self { task, stop }
    }
}

/// Opens the repository, with checkpoints of long runs in the data folder, and its clock.
async fn open_repository(
    data: &DataDir,
    log: &Arc<dyn EventLog>,
) -> anyhow::Result<(Repository, Arc<SteadyClock>)> {
    let checkpoints = Arc::new(CheckpointFolder::new(&data.checkpoints_folder()));
    let clock = Arc::new(SteadyClock::from_log(&**log).await?);
    let repository = Repository::new(Arc::clone(log), Arc::<SteadyClock>::clone(&clock));
    Ok((repository.with_checkpoints(checkpoints), clock))
}

/// Opens the listeners, if the role serves requests.
async fn open_listeners(config: &ServerConfig) -> anyhow::Result<Option<FrontListeners>> {
    match config.role.serves_requests() {
        true => Ok(Some(FrontListeners::open(&config.listen).await?)),
        false => Ok(None),
    }
}

async fn open_read_models_for_role(config: &ServerConfig) -> anyhow::Result<Option<Projections>> {
    match config.role {
        ServerRole::Executor => Ok(None),
        _ => Ok(Some(open_read_models(&config.read_models).await?)),
    }
}

/// Sockets that callers connect to.
struct FrontListeners {
    listener: TcpListener,
    /// A second, unencrypted socket on loopback for commands on this machine, if the first one is
    /// not for them.
    local_listener: Option<TcpListener>,
    url: String,
    options: ServeOptions,
}

impl FrontListeners {
    async fn open(listen: &ListenOptions) -> anyhow::Result<Self> {
        let options = listen.serve_options(Handle::current())?;
        let listener = bind_listener(listen.listen).await?;
        let local = match listen.is_external() {
            true => Some(bind_listener(ListenOptions::loopback().listen).await?),
            false => None,
        };
        let url = format!("{}://{}", listen.url_scheme(), listener.local_addr()?);
        Ok(Self { listener, local_listener: local, url, options })
    }

    /// URL for commands on this machine.
    fn local_url(&self) -> anyhow::Result<String> {
        match &self.local_listener {
            Some(local) => Ok(format!("http://{}", local.local_addr()?)),
            None => Ok(self.url.clone()),
        }
    }

    fn serve_gateway(
        self,
        gateway: Gateway,
        stop: watch::Receiver<bool>,
        runtime: &FrontRuntime,
    ) -> anyhow::Result<JoinHandle<()>> {
        // Sockets belong to the runtime that they are registered with: both are moved to the front
        // runtime.
        let _runtime_guard = runtime.runtime_handle().enter();
        let listener = TcpListener::from_std(self.listener.into_std()?)?;
        let local = self.local_listener.map(TcpListener::into_std).transpose()?;
        let local = local.map(TcpListener::from_std).transpose()?;
        let local_options = ServeOptions { tls: None, ..self.options.clone() };
        Ok(runtime.runtime_handle().spawn(async move {
            let main = convergio_gateway::serve_gateway(
                listener,
                gateway.clone(),
                self.options,
                stop.clone(),
            );
            match local {
                Some(local) => {
                    let local =
                        convergio_gateway::serve_gateway(local, gateway, local_options, stop);
                    tokio::join!(main, local);
                }
                None => main.await,
            }
        }))
    }
}

/// Admits the owner's token and returns it with the live set of tokens, which follows the log from
/// now on.
async fn load_tokens(
    config: &ServerConfig,
    repository: &Repository,
    health: &HealthRegistry,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<(Zeroizing<String>, TokenRegistry)> {
    if !config.role.serves_requests() {
        return Ok((config.data.owner_token_or_new()?, TokenRegistry::default()));
    }
    let (token, recorded_tokens) = owner_tokens::admit_owner(&config.data, repository).await?;
    let (tokens, tenant) = (TokenRegistry::default(), owner_tokens::TENANT.parse::<TenantId>()?);
    if let Some(head) = recorded_tokens.head {
        tokens.replace_tenant_tokens(&tenant, head.seq, &recorded_tokens.state);
    }
    let health = health.component_health("tokens");
    let (repository, stopping) = (repository.clone(), stopping.clone());
    tokio::spawn(follow_tokens(repository, tenant, tokens.clone(), health, stopping));
    Ok((token, tokens))
}

async fn bind_listener(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener
        .map_err(|error| exit::unavailable_error(format!("cannot listen on {address}: {error}")))
}

/// Finds the model servers: those that were named, else those detected, else the managed one.
async fn find_or_start_models(
    config: &ServerConfig,
) -> anyhow::Result<(Vec<DetectedServer>, Option<ManagedModel>)> {
    if !config.role.executes_runs() {
        return Ok((Vec::new(), None));
    }
    let found = find_model_servers(&config.model_urls).await?;
    print_detected(&config.model_urls, &found);
    if !found.is_empty() || !config.model_urls.is_empty() {
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

/// Directory of the models that can be called, for clients that list them.
struct CatalogDirectory(Arc<ModelCatalog>);

#[async_trait]
impl ModelDirectory for CatalogDirectory {
    async fn list_models(&self, tenant: &TenantId) -> Vec<ModelEntry> {
        let offers = self.0.list_offers(tenant).await;
        let entry = |offer: ModelOffer| ModelEntry {
            id: format!("{}/{}", offer.provider, offer.model),
            owner: offer.provider,
        };
        let alias = |name: &str| ModelEntry { id: name.to_owned(), owner: "alias".to_owned() };
        self.0
            .model_aliases()
            .alias_names()
            .map(alias)
            .chain(offers.into_iter().map(entry))
            .collect()
    }
}

/// Starts the evaluator of untrusted expressions and schemas: small ones are evaluated here, all
/// others in worker processes that can be killed.
fn start_evaluator(config: &ServerConfig) -> anyhow::Result<Evaluator> {
    let limits = config.evaluation;
    let folder = config.data.evaluations_folder();
    let pool =
        WorkerPool::new(limits.worker_program(), limits.to_pool_limits(), Some(folder.clone()));
    let pool = pool.map_err(|error| {
        exit::unavailable_error(format!("cannot note evaluations in {}: {error}", folder.display()))
    })?;
    Ok(Evaluator::new(Arc::new(pool), Arc::new(tool::builtin_catalog())))
}

fn build_executor_config(
    memories: &Arc<MemoryIndexes>,
    share: Option<watch::Receiver<SlotSet>>,
    server: &ServerConfig,
    health: &HealthRegistry,
    evaluator: &Evaluator,
) -> ExecutorConfig {
    let mut config = ExecutorConfig::new(ExecutorId(Uuid::now_v7()));
    config.memory = MemoryPort(Some(Arc::new(RecallAdapter(Arc::clone(memories)))));
    if let Some(share) = share {
        config.slot_set = share;
    }
    server.model_calls.apply_to_config(&mut config);
    config.evaluator = evaluator.clone();
    config.health = health.component_health("executor");
    config
}
