//! The composition root: all roles in one process on the embedded log.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use convergio_domain::chat::Privacy;
use convergio_domain::id::ExecutorId;
use convergio_domain::metering::PriceBook;
use convergio_eventstore::embedded::{Config, EmbeddedLog};
use convergio_eventstore::{EventLog, LiveHub, LogError, Repository, SystemClock};
use convergio_executor::model::{Detected, ModelCatalog, Offer, ProviderConfig, detect};
use convergio_executor::{Executor, ExecutorConfig, tool};
use convergio_gateway::{Gateway, ModelDirectory, ModelEntry, Tokens};
use convergio_projections::{ProjectionError, Projections};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::data_dir::{DataDir, Running};
use crate::exit;
use crate::managed_model::{self, ManagedModel};

/// What a server is started with.
#[derive(Debug, Clone)]
pub(crate) struct ServerConfig {
    pub(crate) data: DataDir,
    pub(crate) listen: SocketAddr,
    /// Model servers in place of those found on the machine.
    pub(crate) model_urls: Vec<String>,
    /// Whether runs are executed; reading needs no executor.
    pub(crate) execute: bool,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) token: String,
    /// Whether the token was made just now.
    pub(crate) token_is_new: bool,
    pub(crate) models: Vec<Detected>,
    pub(crate) durability: &'static str,
    log: Arc<EmbeddedLog>,
    data: DataDir,
    executor: Option<Executor>,
    stop: watch::Sender<bool>,
    gateway: JoinHandle<std::io::Result<()>>,
    projector: JoinHandle<Result<(), ProjectionError>>,
    stop_projector: oneshot::Sender<()>,
    _model: Option<ManagedModel>,
}

/// Opens the log of a folder, with a clear error.
pub(crate) fn open_log(data: &DataDir) -> anyhow::Result<EmbeddedLog> {
    data.create()?;
    EmbeddedLog::open(&Config::new(data.path()))
        .map_err(|error: LogError| exit::unavailable(error.to_string()))
}

impl Server {
    /// Starts everything.
    pub(crate) async fn start(config: ServerConfig) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(config.listen).await.map_err(|error| {
            exit::unavailable(format!("cannot listen on {}: {error}", config.listen))
        })?;
        let log = Arc::new(open_log(&config.data)?);
        let (token, token_is_new) = config.data.token_or_new()?;
        let shared: Arc<dyn EventLog> = Arc::clone(&log) as _;
        let repository = Repository::new(Arc::clone(&shared), Arc::new(SystemClock));
        let projections = Projections::open(&config.data.read_models()).await?;
        let queries = projections.queries();
        let (stop_projector, stopped) = oneshot::channel();
        let projector = tokio::spawn(async move { projections.run(shared, stopped).await });
        let live = LiveHub::new();
        let (models, model) =
            if config.execute { models(&config).await? } else { (Vec::new(), None) };
        let catalog = Arc::new(Directory(catalog(&config.data, &models)?));
        let executor =
            config.execute.then(|| executor(&repository, &catalog.0, live.clone())).transpose()?;
        let url = format!("http://{}", listener.local_addr()?);
        let (stop, stopping) = watch::channel(false);
        let owner = ("default".parse()?, "owner".parse()?);
        let gateway = Gateway {
            repository,
            queries,
            live,
            tools: Arc::new(tool::catalog()),
            tokens: Tokens::new([(token.clone(), owner.0, owner.1)]),
            models: catalog,
            stop: stopping.clone(),
        };
        let gateway = tokio::spawn(convergio_gateway::serve(listener, gateway, stopping));
        config.data.announce(&Running { url: url.clone(), pid: std::process::id() })?;
        let durability = log.durability().as_str();
        Ok(Self {
            url,
            token,
            token_is_new,
            models,
            durability,
            log,
            data: config.data,
            executor,
            stop,
            gateway,
            projector,
            stop_projector,
            _model: model,
        })
    }

    /// Waits until a part of the server ends, which it should not, and tells why.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            ended = &mut self.projector => match ended {
                Ok(Err(error)) => anyhow::anyhow!("the projections ended: {error}"),
                _ => anyhow::anyhow!("the projections ended"),
            },
            ended = &mut self.gateway => match ended {
                Ok(Err(error)) => anyhow::anyhow!("the gateway ended: {error}"),
                _ => anyhow::anyhow!("the gateway ended"),
            },
        }
    }

    /// Whether any run could go on by itself.
    pub(crate) async fn is_idle(&self) -> anyhow::Result<bool> {
        let now = convergio_eventstore::Clock::now(&SystemClock);
        let due = self.log.due(now, 1).await?;
        Ok(due.is_empty() && self.log.next_due(now).await?.is_none())
    }

    /// Ends orderly: no new step, those under way finish within a grace, everything is flushed.
    pub(crate) async fn shutdown(self) -> anyhow::Result<()> {
        self.data.withdraw();
        // Streams end first, so that nobody waits for events that will not come.
        self.stop.send_replace(true);
        if let Some(executor) = self.executor {
            executor.shutdown().await?;
        }
        let _gateway = self.gateway.await;
        let _stopping = self.stop_projector.send(());
        let _projector = self.projector.await;
        self.log.close().await?;
        Ok(())
    }
}

/// The model servers: those that were named, else those that run, else the managed one.
async fn models(config: &ServerConfig) -> anyhow::Result<(Vec<Detected>, Option<ManagedModel>)> {
    let found = detect(&config.model_urls).await;
    if !found.is_empty() || !config.model_urls.is_empty() {
        return Ok((found, None));
    }
    match managed_model::installed(&config.data) {
        Some(folder) => {
            let model = managed_model::start(&folder).await?;
            Ok((vec![model.server.clone()], Some(model)))
        }
        None => Ok((Vec::new(), None)),
    }
}

/// The models that can be asked, for who lists them.
struct Directory(Arc<ModelCatalog>);

#[async_trait]
impl ModelDirectory for Directory {
    async fn models(&self) -> Vec<ModelEntry> {
        let offers = self.0.offers().await;
        let entry = |offer: Offer| ModelEntry {
            id: format!("{}/{}", offer.provider, offer.model),
            owner: offer.provider,
        };
        offers.into_iter().map(entry).collect()
    }
}

/// All providers: the model servers that were found, those that the environment has keys for, and
/// those of the data folder's file, which stand for others of the same name.
fn catalog(data: &DataDir, models: &[Detected]) -> anyhow::Result<Arc<ModelCatalog>> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut providers: Vec<ProviderConfig> = models.iter().map(Detected::provider).collect();
    providers.extend(ProviderConfig::from_environment(variable)?);
    if let Ok(text) = std::fs::read_to_string(data.path().join("providers.json")) {
        let named = ProviderConfig::from_file(&text, data.path(), variable);
        let named = named.map_err(|error| exit::bad_input(error.message))?;
        providers.retain(|known| named.iter().all(|entry| entry.name != known.name));
        providers.extend(named);
    }
    let prices = Arc::new(PriceBook::parse(convergio_schemas::PRICE_BOOK)?);
    let catalog = ModelCatalog::new(providers, prices)?;
    let privacy = std::env::var("CONVERGIO_PRIVACY").ok().filter(|text| !text.is_empty());
    let privacy: Option<Privacy> =
        privacy.map(|text| text.parse()).transpose().map_err(exit::bad_input)?;
    Ok(Arc::new(catalog.held_to(privacy.unwrap_or_default())))
}

fn executor(
    repository: &Repository,
    catalog: &Arc<ModelCatalog>,
    live: LiveHub,
) -> anyhow::Result<Executor> {
    let prices = Arc::new(PriceBook::parse(convergio_schemas::PRICE_BOOK)?);
    let config = ExecutorConfig::new(ExecutorId(Uuid::now_v7()));
    Ok(Executor::start(config, repository.clone(), Arc::clone(catalog), live, prices))
}
