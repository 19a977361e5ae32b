//! `convergio serve`: starts a server and waits for its end.

use std::process::ExitCode;
use std::time::Duration;

use convergio_eventstore::Durability;
use convergio_process::{exit, out_line, terminal};
use convergio_server::config::{
    ExecutorRoleConfig, GatewayConfig, ProjectorConfig, ServerConfig, ServerRole,
};
use convergio_server::data_dir::DataDir;
use convergio_server::{FrontRuntime, InProcessServer, LogLocation};
use serde_json::json;

use crate::cli::{GlobalOptions, ServeArgs};

/// Interval at which `--until-idle` checks for remaining work.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum time that a background server waits for commands that hold its folder for a moment.
const FOLDER_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn run(global: &GlobalOptions, args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let place = LogLocation::from_options(&global.log)?;
    if args.role != ServerRole::All && matches!(place, LogLocation::Folder) {
        return Err(exit::bad_input_error("roles apart need a log in a cluster: --log nats://…"));
    }
    let data = DataDir::find_folder(global.data.as_deref())?;
    let front_runtime = FrontRuntime::start()?;
    let mut stop_signals = front_runtime.stop_signals()?;
    let config = ServerConfig {
        data: data.clone(),
        log_location: place,
        // Nobody restarts a background server after a short command held its folder.
        folder_patience: if args.until_idle { FOLDER_TIMEOUT } else { Duration::ZERO },
        role: args.role,
        evaluation: args.evaluation,
        gateway: GatewayConfig { listen: args.listen.clone(), doors: args.doors },
        executor: ExecutorRoleConfig {
            model_urls: global.model_urls.clone(),
            model_calls: args.model_calls,
        },
        projector: ProjectorConfig { read_models: global.read_models.to_store(&data) },
    };
    let mut server = InProcessServer::start_server(config, front_runtime).await?;
    print_ready(global, &data, &server)?;
    let failure = tokio::select! {
        () = stop_signals.next_signal() => None,
        result = wait_for_end(&mut server, args.until_idle) => result.err(),
    };
    let shutdown = tokio::spawn(server.shutdown_server());
    tokio::select! {
        ended = shutdown => ended??,
        // A second signal stops at once; interrupted work is found in the log by the next start.
        () = stop_signals.next_signal() => {}
    }
    match failure {
        Some(error) => Err(exit::unavailable_error(error.to_string())),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Waits until the server fails or, with `until_idle`, until no work is left.
async fn wait_for_end(server: &mut InProcessServer, until_idle: bool) -> anyhow::Result<()> {
    loop {
        let failed = tokio::time::timeout(IDLE_CHECK_INTERVAL, server.wait_for_failure()).await;
        if let Ok(error) = failed {
            return Err(error);
        }
        if until_idle && server.is_idle().await? {
            return Ok(());
        }
    }
}

fn print_ready(
    global: &GlobalOptions,
    data: &DataDir,
    server: &InProcessServer,
) -> anyhow::Result<()> {
    let token = data.token_file();
    let models: Vec<String> = server
        .model_servers
        .iter()
        .flat_map(|found| found.models.iter().map(move |model| (found, model)))
        .map(|(found, model)| format!("{} ({})", model.id, found.kind.as_str()))
        .collect();
    if global.json {
        let ready = json!({"url": server.url, "data": data.as_path(), "models": models,
            "durability": server.durability.as_str(), "pid": std::process::id(),
            "token_file": token});
        terminal::print_json_line(&ready)?;
        return Ok(());
    }
    out_line!("convergio {} is ready", env!("CARGO_PKG_VERSION"));
    if !server.url.is_empty() {
        out_line!("  url         {}", server.url);
    }
    out_line!("  data        {}", data.as_path().display());
    out_line!(
        "  durability  {}: {}",
        server.durability.as_str(),
        durability_text(server.durability)
    );
    match models.is_empty() {
        true => out_line!("  models      none: see `convergio models list`"),
        false => out_line!("  models      {}", models.join(", ")),
    }
    if server.url.is_empty() {
        return Ok(());
    }
    out_line!("  token       in {}", token.display());
    out_line!(
        "  try         curl -H @- {}/v1/runs <<<\"Authorization: Bearer $(cat {})\"",
        server.url,
        token.display()
    );
    Ok(())
}

/// Guarantee of a durability level, for people.
fn durability_text(durability: Durability) -> &'static str {
    match durability {
        Durability::Process => "a power cut may lose what was acknowledged",
        Durability::Fsync => "what is acknowledged survives a power cut",
        Durability::QuorumFsync => "what is acknowledged survives the loss of a server",
    }
}
