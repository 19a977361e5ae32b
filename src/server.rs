//! The composition root: starts the roles of a process on the log of its folder or of a cluster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use convergio_domain::id::{ExecutorId, TenantId};
use convergio_evaluation::Evaluator;
use convergio_evaluation::pool::WorkerPool;
use convergio_eventstore::jetstream::Shares;
use convergio_eventstore::{
    CheckpointFolder, Clock, Durability, EventLog, HealthRegistry, LiveHub, Repository, Share,
    SteadyClock,
};
use convergio_executor::memory::MemoryPort;
use convergio_executor::model::{Detected, ModelCatalog, Offer};
use convergio_executor::{Executor, ExecutorConfig, tool};
use convergio_gateway::{Gateway, ModelDirectory, ModelEntry, ServeOptions, Tokens, follow_tokens};
use convergio_projections::{Memories, ProjectionError, Projections, Store};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::cli::{DoorOptions, EvaluationLimits, ListenOptions, ModelCallLimits, Role};
use crate::data_dir::{DataDir, Running};
use crate::exit;
use crate::front_runtime::FrontRuntime;
use crate::log_place::{LogPlace, OpenLog};
use crate::managed_model::{self, ManagedModel, ModelAccess};
use crate::model_servers::{find_model_servers, tell_found};
use crate::model_setup::ModelSetup;
use crate::owner_tokens;
use crate::remembered::Remembered;
use crate::replayer::LogReplayer;

/// Configuration of a server.
pub(crate) struct ServerConfig {
    pub(crate) data: DataDir,
    pub(crate) listen: ListenOptions,
    /// Location of the read models.
    pub(crate) read_models: Store,
    /// URLs of model servers, in place of those detected on the machine.
    pub(crate) model_urls: Vec<String>,
    /// Location of the log.
    pub(crate) place: LogPlace,
    /// Maximum time to wait for a folder that another process holds.
    pub(crate) folder_patience: Duration,
    /// Role of this process.
    pub(crate) role: Role,
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
pub(crate) struct Server {
    /// URL of the gateway; empty without one.
    pub(crate) url: String,
    /// Token of the data folder's owner.
    pub(crate) token: Zeroizing<String>,
    pub(crate) models: Vec<Detected>,
    pub(crate) durability: Durability,
    log: Arc<dyn EventLog>,
    clock: Arc<SteadyClock>,
    data: DataDir,
    executor: Option<Executor>,
    /// Lease of this executor's slots, in a cluster.
    shares: Option<Shares>,
    stop: watch::Sender<bool>,
    gateway: Option<JoinHandle<()>>,
    _front_runtime: FrontRuntime,
    projector: Option<Projector>,
    _model: Option<ManagedModel>,
}

/// The projector's task and its stop signal.
struct Projector {
    task: JoinHandle<Result<(), ProjectionError>>,
    stop: oneshot::Sender<()>,
}

async fn open_log(config: &ServerConfig) -> anyhow::Result<OpenLog> {
    config.place.open_within(&config.data, config.folder_patience).await
}

/// Leases slots of the work on a log in a cluster, which several executors share.
fn share_work(open: &OpenLog, health: &HealthRegistry) -> Option<Shares> {
    match open {
        OpenLog::Embedded(_) => None,
        OpenLog::Cluster(log) => Some(log.share(health.component("slots"))),
    }
}

/// Opens read models; an error names their location.
pub(crate) async fn open_read_models(store: &Store) -> anyhow::Result<Projections> {
    Projections::open(store.clone()).await.map_err(|error| {
        let place = match store {
            Store::File(file) => file.display().to_string(),
            // The URL may hold a password.
            Store::Server(_) => "the PostgreSQL server (--database, DATABASE_URL)".to_owned(),
        };
        exit::unavailable(format!("cannot use the read models in {place}: {error}"))
    })
}

impl Server {
    /// Starts the parts that the role asks for, in the order in which they depend on each other.
    pub(crate) async fn start(config: ServerConfig) -> anyhow::Result<Self> {
        let role = config.role;
        // First the step that fails for reasons of its own, an address in use: nothing needs
        // undoing.
        let front = open_front(&config).await?;
        let open = open_log(&config).await?;
        let log = open.shared();
        let (repository, clock) = open_repository(&config.data, &log).await?;
        let live = LiveHub::new();
        let health = HealthRegistry::default();
        let (stop, stopping) = watch::channel(false);
        // Tokens are loaded before listeners serve, so that the first request is not refused.
        let (token, tokens) = admit_tokens(&config, &repository, &health, &stopping).await?;
        let memories = Arc::new(Memories::new(Arc::clone(&log)));
        let projections = open_read_models_of_role(&config).await?;
        let queries = projections.as_ref().map(Projections::queries);
        // A log in a folder has one process, which therefore projects whatever its role.
        let is_alone = matches!(config.place, LogPlace::Folder);
        let projects = is_alone || role.projects(&config.read_models);
        let projector = projections.filter(|_| projects);
        let projector = projector.map(|models| Projector::start(models, &log, &health));
        let (mut shares, mut executor) = (None, None);
        let (models, model) = find_models(&config).await?;
        let ModelSetup { catalog, prices } = ModelSetup::read(&config.data, &models)?;
        let catalog = Arc::new(Directory(catalog));
        let evaluator = start_evaluator(&config)?;
        if role.executes() {
            shares = share_work(&open, &health);
            let share = shares.as_ref().map(Shares::watch);
            let executor_config = executor_config(&memories, share, &config, &health, &evaluator);
            let (log, models) = (repository.clone(), Arc::clone(&catalog.0));
            executor = Some(Executor::start(executor_config, log, models, live.clone(), prices));
        }
        let (mut url, mut gateway) = (String::new(), None);
        if let (Some(front), Some(queries)) = (front, queries) {
            let local_url = front.local_url()?;
            url.clone_from(&front.url);
            let app = Gateway {
                replayer: Arc::new(LogReplayer::new(&repository, &queries, evaluator.clone())),
                memories: Arc::clone(&memories),
                repository,
                queries,
                health,
                live,
                evaluator,
                tokens,
                models: catalog,
                doors: config.doors.settings(),
                stop: stopping.clone(),
            };
            gateway = Some(front.serve(app, stopping, &config.front_runtime)?);
            // Announced last: whoever reads `server.json` finds a server that answers.
            config.data.announce(&Running { url: local_url, pid: std::process::id() })?;
        }
        Ok(Self {
            url,
            token,
            models,
            durability: log.durability(),
            log,
            clock,
            data: config.data,
            executor,
            shares,
            stop,
            gateway,
            _front_runtime: config.front_runtime,
            projector,
            _model: model,
        })
    }

    /// Waits until a part of the server ends, which none should, and returns the reason.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
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
                Some(executor) => executor.failed().await,
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
        let due = self.log.due(now, 1).await?;
        Ok(due.is_empty() && self.log.next_due(now).await?.is_none())
    }

    /// Shuts down in order: no new step starts, steps under way finish within a grace period,
    /// everything is flushed.
    pub(crate) async fn shutdown(self) -> anyhow::Result<()> {
        self.data.withdraw();
        // Event streams end first, so that clients do not wait for events that will not come.
        self.stop.send_replace(true);
        if let Some(executor) = self.executor {
            executor.shutdown().await?;
        }
        // Slots go back before the log closes: another executor takes them over without waiting for
        // the lease to expire.
        if let Some(shares) = self.shares {
            shares.leave().await;
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

impl Projector {
    fn start(models: Projections, log: &Arc<dyn EventLog>, health: &HealthRegistry) -> Self {
        let models = models.reporting_to(health.component("projector"));
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
    let checkpoints = Arc::new(CheckpointFolder::new(&data.checkpoints()));
    let clock = Arc::new(SteadyClock::of_log(&**log).await?);
    let repository = Repository::new(Arc::clone(log), Arc::<SteadyClock>::clone(&clock));
    Ok((repository.with_checkpoints(checkpoints), clock))
}

/// Opens the listeners, if the role serves requests.
async fn open_front(config: &ServerConfig) -> anyhow::Result<Option<Front>> {
    match config.role.answers() {
        true => Ok(Some(Front::open(&config.listen).await?)),
        false => Ok(None),
    }
}

async fn open_read_models_of_role(config: &ServerConfig) -> anyhow::Result<Option<Projections>> {
    match config.role {
        Role::Executor => Ok(None),
        _ => Ok(Some(open_read_models(&config.read_models).await?)),
    }
}

/// Sockets that callers connect to.
struct Front {
    listener: TcpListener,
    /// A second, unencrypted socket on loopback for commands on this machine, if the first one is
    /// not for them.
    local: Option<TcpListener>,
    url: String,
    options: ServeOptions,
}

impl Front {
    async fn open(listen: &ListenOptions) -> anyhow::Result<Self> {
        let options = listen.serve_options(Handle::current())?;
        let listener = bind_listener(listen.listen).await?;
        let local = match listen.is_for_others() {
            true => Some(bind_listener(ListenOptions::local().listen).await?),
            false => None,
        };
        let url = format!("{}://{}", listen.scheme(), listener.local_addr()?);
        Ok(Self { listener, local, url, options })
    }

    /// URL for commands on this machine.
    fn local_url(&self) -> anyhow::Result<String> {
        match &self.local {
            Some(local) => Ok(format!("http://{}", local.local_addr()?)),
            None => Ok(self.url.clone()),
        }
    }

    fn serve(
        self,
        gateway: Gateway,
        stop: watch::Receiver<bool>,
        runtime: &FrontRuntime,
    ) -> anyhow::Result<JoinHandle<()>> {
        // Sockets belong to the runtime that they are registered with: both are moved to the front
        // runtime.
        let _within = runtime.handle().enter();
        let listener = TcpListener::from_std(self.listener.into_std()?)?;
        let local = self.local.map(TcpListener::into_std).transpose()?;
        let local = local.map(TcpListener::from_std).transpose()?;
        let clear = ServeOptions { tls: None, ..self.options.clone() };
        Ok(runtime.handle().spawn(async move {
            let main =
                convergio_gateway::serve(listener, gateway.clone(), self.options, stop.clone());
            match local {
                Some(local) => {
                    let local = convergio_gateway::serve(local, gateway, clear, stop);
                    tokio::join!(main, local);
                }
                None => main.await,
            }
        }))
    }
}

/// Admits the owner's token and returns it with the live set of tokens, which follows the log from
/// now on.
async fn admit_tokens(
    config: &ServerConfig,
    repository: &Repository,
    health: &HealthRegistry,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<(Zeroizing<String>, Tokens)> {
    if !config.role.answers() {
        return Ok((config.data.token_or_new()?, Tokens::default()));
    }
    let (token, known) = owner_tokens::admit(&config.data, repository).await?;
    let (tokens, tenant) = (Tokens::default(), owner_tokens::TENANT.parse::<TenantId>()?);
    if let Some(head) = known.head {
        tokens.replace(&tenant, head.seq, &known.state);
    }
    let health = health.component("tokens");
    let (repository, stopping) = (repository.clone(), stopping.clone());
    tokio::spawn(follow_tokens(repository, tenant, tokens.clone(), health, stopping));
    Ok((token, tokens))
}

async fn bind_listener(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| exit::unavailable(format!("cannot listen on {address}: {error}")))
}

/// Finds the model servers: those that were named, else those detected, else the managed one.
async fn find_models(
    config: &ServerConfig,
) -> anyhow::Result<(Vec<Detected>, Option<ManagedModel>)> {
    if !config.role.executes() {
        return Ok((Vec::new(), None));
    }
    let found = find_model_servers(&config.model_urls).await?;
    tell_found(&config.model_urls, &found);
    if !found.is_empty() || !config.model_urls.is_empty() {
        return Ok((found, None));
    }
    match managed_model::installed() {
        Some(folder) => {
            let log = config.data.path().join("model.log");
            let model = managed_model::start(&folder, &log, ModelAccess::Starter).await?;
            Ok((vec![model.server.clone()], Some(model)))
        }
        None => Ok((Vec::new(), None)),
    }
}

/// Directory of the models that can be called, for clients that list them.
struct Directory(Arc<ModelCatalog>);

#[async_trait]
impl ModelDirectory for Directory {
    async fn models(&self, tenant: &TenantId) -> Vec<ModelEntry> {
        let offers = self.0.offers(tenant).await;
        let entry = |offer: Offer| ModelEntry {
            id: format!("{}/{}", offer.provider, offer.model),
            owner: offer.provider,
        };
        let alias = |name: &str| ModelEntry { id: name.to_owned(), owner: "alias".to_owned() };
        self.0.aliases().names().map(alias).chain(offers.into_iter().map(entry)).collect()
    }
}

/// Starts the evaluator of untrusted expressions and schemas: small ones are evaluated here, all
/// others in worker processes that can be killed.
fn start_evaluator(config: &ServerConfig) -> anyhow::Result<Evaluator> {
    let limits = config.evaluation;
    let folder = config.data.attempts();
    let pool = WorkerPool::new(limits.program(), limits.of_pool(), Some(folder.clone()));
    let pool = pool.map_err(|error| {
        exit::unavailable(format!("cannot note evaluations in {}: {error}", folder.display()))
    })?;
    Ok(Evaluator::new(Arc::new(pool), Arc::new(tool::catalog())))
}

fn executor_config(
    memories: &Arc<Memories>,
    share: Option<watch::Receiver<Share>>,
    server: &ServerConfig,
    health: &HealthRegistry,
    evaluator: &Evaluator,
) -> ExecutorConfig {
    let mut config = ExecutorConfig::new(ExecutorId(Uuid::now_v7()));
    config.memory = MemoryPort(Some(Arc::new(Remembered(Arc::clone(memories)))));
    if let Some(share) = share {
        config.share = share;
    }
    server.model_calls.apply_to(&mut config);
    config.evaluator = evaluator.clone();
    config.health = health.component("executor");
    config
}
