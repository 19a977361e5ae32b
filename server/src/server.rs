//! A server in this process: its roles from their start to their end.

use std::future::pending;
use std::sync::Arc;

use convergio_eventstore::{Durability, EventLog, SteadyClock, WallClock};
use convergio_executor::catalog::DetectedServer;
use convergio_local_models::managed_model::ManagedModel;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::config::ServerConfig;
use crate::data_dir::DataDir;
use crate::front_runtime::FrontRuntime;
use crate::model_setup::ModelSetup;
use crate::roles::executor::{ExecutorTask, find_or_start_models, start_executor};
use crate::roles::gateway::{
    FrontListeners, GatewayResources, GatewayTask, load_tokens, start_gateway,
};
use crate::roles::projector::{ProjectorTask, start_projector};
use crate::roles::{SharedParts, start_evaluator};

/// A server that runs in this process.
pub struct InProcessServer {
    /// URL of the gateway; empty without one.
    pub url: String,
    /// Token of the data folder's owner.
    pub token: Zeroizing<String>,
    /// Model servers that the executor calls.
    pub model_servers: Vec<DetectedServer>,
    /// Guarantee that the log gives for what it acknowledges.
    pub durability: Durability,
    log: Arc<dyn EventLog>,
    clock: Arc<SteadyClock>,
    data: DataDir,
    executor: Option<ExecutorTask>,
    stop: watch::Sender<bool>,
    gateway: Option<GatewayTask>,
    _front_runtime: FrontRuntime,
    projector: Option<ProjectorTask>,
    _managed_model: Option<ManagedModel>,
}

impl InProcessServer {
    /// Starts the parts that the role asks for, in the order in which they depend on each other.
    /// Connections are served on `front_runtime`.
    ///
    /// # Errors
    /// An address, the log, the read models or a file of the operator cannot be used.
    pub async fn start_server(
        config: ServerConfig,
        front_runtime: FrontRuntime,
    ) -> anyhow::Result<Self> {
        // First the step that fails for reasons of its own, an address in use: nothing needs
        // undoing.
        let listeners = FrontListeners::open_for_role(&config).await?;
        let parts = SharedParts::open(&config).await?;
        // Tokens are loaded before listeners serve, so that the first request is not refused.
        let (token, tokens) = load_tokens(&config, &parts).await?;
        let (queries, projector) = start_projector(&config, &parts).await?;
        let (model_servers, managed_model) = find_or_start_models(&config).await?;
        let models = ModelSetup::read(&config.data, &model_servers)?;
        let evaluator = start_evaluator(&config)?;
        let executor = start_executor(&config, &parts, &models, &evaluator);
        let gateway = match (listeners, queries) {
            (Some(listeners), Some(queries)) => {
                let resources = GatewayResources { queries, tokens, models: &models, evaluator };
                Some(start_gateway(&config, &parts, listeners, resources, &front_runtime)?)
            }
            _ => None,
        };
        Ok(Self {
            url: gateway.as_ref().map(|gateway| gateway.url.clone()).unwrap_or_default(),
            token,
            model_servers,
            durability: parts.log.durability(),
            log: parts.log,
            clock: parts.clock,
            data: config.data,
            executor,
            stop: parts.stop,
            gateway,
            _front_runtime: front_runtime,
            projector,
            _managed_model: managed_model,
        })
    }

    /// Waits until a part of the server ends, which none should, and returns the reason.
    pub async fn wait_for_failure(&mut self) -> anyhow::Error {
        let gateway = async {
            match &mut self.gateway {
                Some(gateway) => gateway.wait_for_failure().await,
                None => pending().await,
            }
        };
        let projector = async {
            match &mut self.projector {
                Some(projector) => projector.wait_for_failure().await,
                None => pending().await,
            }
        };
        let executor = async {
            match &mut self.executor {
                Some(executor) => executor.wait_for_failure().await,
                None => pending().await,
            }
        };
        tokio::select! {
            error = projector => error,
            error = gateway => error,
            error = executor => error,
        }
    }

    /// True if no run is due now or later: nothing goes on without an event from outside.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn is_idle(&self) -> anyhow::Result<bool> {
        let now = self.clock.now();
        let due = self.log.due_streams(now, 1).await?;
        Ok(due.is_empty() && self.log.next_due_time(now).await?.is_none())
    }

    /// Shuts down in order: no new step starts, steps under way finish within a grace period,
    /// everything is flushed.
    ///
    /// # Errors
    /// An outcome cannot be written, or the log cannot be closed.
    pub async fn shutdown_server(self) -> anyhow::Result<()> {
        self.data.remove_server_record();
        // Event streams end first, so that clients do not wait for events that will not come.
        self.stop.send_replace(true);
        if let Some(executor) = self.executor {
            executor.shut_down().await?;
        }
        if let Some(gateway) = self.gateway {
            gateway.shut_down().await;
        }
        // The projector is stopped last, so that it applies what the others have written.
        if let Some(projector) = self.projector {
            projector.shut_down().await;
        }
        self.log.close().await?;
        Ok(())
    }
}
