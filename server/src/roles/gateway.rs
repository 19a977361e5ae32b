//! The gateway's role: listeners, tokens, and what callers are served with.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use convergio_domain::id::TenantId;
use convergio_evaluation::Evaluator;
use convergio_executor::catalog::{ModelCatalog, ModelOffer};
use convergio_gateway::{
    Gateway, ModelDirectory, ModelEntry, ServeOptions, TokenRegistry, follow_tokens,
};
use convergio_process::exit;
use convergio_projections::Queries;
use convergio_replay::LogReplayer;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::SharedParts;
use crate::config::{ListenOptions, ServerConfig};
use crate::data_dir::ServerRecord;
use crate::front_runtime::FrontRuntime;
use crate::model_setup::ModelSetup;
use crate::owner_tokens;

/// A gateway that serves requests.
pub(crate) struct GatewayTask {
    /// URL for callers.
    pub(crate) url: String,
    task: JoinHandle<()>,
}

/// What a gateway answers requests with, besides what all roles share.
pub(crate) struct GatewayResources<'a> {
    pub(crate) queries: Queries,
    pub(crate) tokens: TokenRegistry,
    pub(crate) models: &'a ModelSetup,
    pub(crate) evaluator: Evaluator,
}

/// Serves requests and announces the gateway in `server.json`.
pub(crate) fn start_gateway(
    config: &ServerConfig,
    parts: &SharedParts,
    listeners: FrontListeners,
    resources: GatewayResources<'_>,
    runtime: &FrontRuntime,
) -> anyhow::Result<GatewayTask> {
    let GatewayResources { queries, tokens, models, evaluator } = resources;
    let (url, local_url) = (listeners.url.clone(), listeners.local_url()?);
    let gateway = Gateway {
        replayer: Arc::new(LogReplayer::new(&parts.repository, &queries, evaluator.clone())),
        memories: Arc::clone(&parts.memories),
        repository: parts.repository.clone(),
        queries,
        health: parts.health.clone(),
        live_notes: parts.live.clone(),
        evaluator,
        tokens,
        models: Arc::new(CatalogDirectory(Arc::clone(&models.catalog))),
        compat: config.gateway.doors.to_settings(),
        stop: parts.stop.subscribe(),
    };
    let stop = gateway.stop.clone();
    let task = listeners.serve_gateway(gateway, stop, runtime)?;
    // Announced last: whoever reads `server.json` finds a server that answers.
    config.data.write_server_record(&ServerRecord { url: local_url, pid: std::process::id() })?;
    Ok(GatewayTask { url, task })
}

impl GatewayTask {
    /// Waits until the gateway ends, which it should not, and returns the reason.
    pub(crate) async fn wait_for_failure(&mut self) -> anyhow::Error {
        let _ended = (&mut self.task).await;
        anyhow::anyhow!("the gateway ended")
    }

    /// Waits until the gateway has ended after the process's stop signal.
    pub(crate) async fn shut_down(self) {
        // A task that has ended already was reported by `wait_for_failure`.
        if !self.task.is_finished() {
            let _gateway = self.task.await;
        }
    }
}

/// Sockets that callers connect to.
pub(crate) struct FrontListeners {
    listener: TcpListener,
    /// A second, unencrypted socket on loopback for commands on this machine, if the first one is
    /// not for them.
    local_listener: Option<TcpListener>,
    url: String,
    options: ServeOptions,
}

impl FrontListeners {
    /// Opens the sockets, if the role serves requests.
    pub(crate) async fn open_for_role(config: &ServerConfig) -> anyhow::Result<Option<Self>> {
        match config.role.serves_requests() {
            true => Ok(Some(Self::open(&config.gateway.listen).await?)),
            false => Ok(None),
        }
    }

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

async fn bind_listener(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener
        .map_err(|error| exit::unavailable_error(format!("cannot listen on {address}: {error}")))
}

/// Admits the owner's token and returns it with the live set of tokens, which follows the log from
/// now on.
pub(crate) async fn load_tokens(
    config: &ServerConfig,
    parts: &SharedParts,
) -> anyhow::Result<(Zeroizing<String>, TokenRegistry)> {
    if !config.role.serves_requests() {
        return Ok((config.data.owner_token_or_new()?, TokenRegistry::default()));
    }
    let repository = parts.repository.clone();
    let (token, recorded_tokens) = owner_tokens::admit_owner(&config.data, &repository).await?;
    let (tokens, tenant) = (TokenRegistry::default(), owner_tokens::TENANT.parse::<TenantId>()?);
    if let Some(head) = recorded_tokens.head {
        tokens.replace_tenant_tokens(&tenant, head.seq, &recorded_tokens.state);
    }
    let health = parts.health.component_health("tokens");
    let stopping = parts.stop.subscribe();
    tokio::spawn(follow_tokens(repository, tenant, tokens.clone(), health, stopping));
    Ok((token, tokens))
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
