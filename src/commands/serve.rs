//! `convergio serve`: starts a server and waits for its end.

use std::process::ExitCode;
use std::time::Duration;

use convergio_eventstore::Durability;
use serde_json::json;

use crate::cli::{Global, Role, ServeArgs};
use crate::data_dir::DataDir;
use crate::exit;
use crate::front_runtime::FrontRuntime;
use crate::log_place::LogPlace;
use crate::server::{Server, ServerConfig};
use crate::terminal;

/// Interval at which `--until-idle` checks for remaining work.
const IDLE_CHECK: Duration = Duration::from_millis(500);

/// Maximum time that a background server waits for commands that hold its folder for a moment.
const FOLDER_PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(global: &Global, args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let place = LogPlace::find(global)?;
    if args.role != Role::All && matches!(place, LogPlace::Folder) {
        return Err(exit::bad_input("roles apart need a log in a cluster: --log nats://…"));
    }
    let data = DataDir::find(global.data.as_deref())?;
    let front_runtime = FrontRuntime::start()?;
    let mut stop_signals = front_runtime.stop_signals()?;
    let mut server = Server::start(ServerConfig {
        data: data.clone(),
        listen: args.listen.clone(),
        model_urls: global.model_urls.clone(),
        read_models: global.read_models()?,
        place,
        // Nobody restarts a background server after a short command held its folder.
        folder_patience: if args.until_idle { FOLDER_PATIENCE } else { Duration::ZERO },
        role: args.role,
        model_calls: args.model_calls,
        doors: args.doors,
        front_runtime,
        evaluation: args.evaluation,
    })
    .await?;
    announce(global, &data, &server)?;
    let failure = tokio::select! {
        () = stop_signals.next() => None,
        ended = ended(&mut server, args.until_idle) => ended.err(),
    };
    let shutdown = tokio::spawn(server.shutdown());
    tokio::select! {
        ended = shutdown => ended??,
        // A second signal stops at once; interrupted work is found in the log by the next start.
        () = stop_signals.next() => {}
    }
    match failure {
        Some(error) => Err(exit::unavailable(error.to_string())),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Waits until the server fails or, with `until_idle`, until no work is left.
async fn ended(server: &mut Server, until_idle: bool) -> anyhow::Result<()> {
    loop {
        let failed = tokio::time::timeout(IDLE_CHECK, server.failed()).await;
        if let Ok(error) = failed {
            return Err(error);
        }
        if until_idle && server.is_idle().await? {
            return Ok(());
        }
    }
}

fn announce(global: &Global, data: &DataDir, server: &Server) -> anyhow::Result<()> {
    let token = data.token_file();
    let models: Vec<String> = server
        .models
        .iter()
        .flat_map(|found| found.models.iter().map(move |model| (found, model)))
        .map(|(found, model)| format!("{} ({})", model.id, found.kind.as_str()))
        .collect();
    if global.json {
        let ready = json!({"url": server.url, "data": data.path(), "models": models,
            "durability": server.durability.as_str(), "pid": std::process::id(),
            "token_file": token});
        terminal::print_json_line(&ready)?;
        return Ok(());
    }
    out_line!("convergio {} is ready", env!("CARGO_PKG_VERSION"));
    if !server.url.is_empty() {
        out_line!("  url         {}", server.url);
    }
    out_line!("  data        {}", data.path().display());
    out_line!("  durability  {}: {}", server.durability.as_str(), survives(server.durability));
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
fn survives(durability: Durability) -> &'static str {
    match durability {
        Durability::Process => "a power cut may lose what was acknowledged",
        Durability::Fsync => "what is acknowledged survives a power cut",
        Durability::QuorumFsync => "what is acknowledged survives the loss of a server",
    }
}
