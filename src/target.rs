//! Which server a command speaks to: one that was named, the one that uses the data folder, or one
//! that is started in this process for the time of the command.

use crate::cli::{EvaluationLimits, Global, ModelCallLimits, Role};
use crate::client::Client;
use crate::data_dir::DataDir;
use crate::exit;
use crate::log_place::LogPlace;
use crate::server::{Server, ServerConfig};

/// A server to speak to.
pub(crate) struct Target {
    pub(crate) client: Client,
    /// The server, when it is ours.
    pub(crate) own: Option<Server>,
}

impl Target {
    /// Finds a server, or starts one. `execute` says whether runs are to go on meanwhile.
    pub(crate) async fn find(global: &Global, execute: bool) -> anyhow::Result<Self> {
        let data = DataDir::find(global.data.as_deref());
        let token = global.token.clone().or_else(|| data.token());
        if let Some(url) = &global.server {
            let token =
                token.ok_or_else(|| exit::bad_input("give the server's token by --token"))?;
            return Ok(Self { client: Client::new(url, &token)?, own: None });
        }
        if let (Some(running), Some(token)) = (data.running(), token) {
            let client = Client::new(&running.url, &token)?;
            if client.is_alive().await {
                return Ok(Self { client, own: None });
            }
        }
        let config = ServerConfig {
            data,
            listen: ([127, 0, 0, 1], 0).into(),
            model_urls: global.model_urls.clone(),
            read_models: global.read_models(),
            place: LogPlace::find(global)?,
            folder_patience: std::time::Duration::ZERO,
            role: if execute { Role::All } else { Role::Gateway },
            model_calls: ModelCallLimits::default(),
            evaluation: EvaluationLimits::default(),
        };
        let server = Server::start(config).await?;
        let client = Client::new(&server.url, &server.token)?;
        Ok(Self { client, own: Some(server) })
    }

    /// Ends the server, if it is ours.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        match self.own {
            Some(server) => server.shutdown().await,
            None => Ok(()),
        }
    }
}
