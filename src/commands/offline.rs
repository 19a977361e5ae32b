//! `convergio projections`: rebuilds and checks read models. The data folder must not be in use.

use std::process::ExitCode;

use convergio_eventstore::EventLog;
use convergio_projections::{Projections, rebuild};
use serde_json::json;

use super::print_json;
use crate::cli::{Global, ProjectionsCommand};
use crate::data_dir::DataDir;
use crate::exit;
use crate::log_place::LogPlace;
use crate::server::open_read_models;

pub(super) async fn projections(
    global: &Global,
    command: ProjectionsCommand,
) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref())?;
    let log = LogPlace::find(global)?.open(&data).await?.shared();
    let done = match command {
        ProjectionsCommand::Rebuild => build(global, &*log).await,
        ProjectionsCommand::Check => check(global, &data, &*log).await,
    };
    log.close().await?;
    done
}

async fn build(global: &Global, log: &dyn EventLog) -> anyhow::Result<ExitCode> {
    let mut records = 0;
    rebuild(global.read_models()?, log, |at, tail| {
        records = at.0;
        err_line!("rebuilding: {} of {} records", at.0, tail.0);
    })
    .await?;
    match global.json {
        true => print_json(&json!({"records": records}))?,
        false => out_line!("the read models are built anew from {records} records"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(global: &Global, data: &DataDir, log: &dyn EventLog) -> anyhow::Result<ExitCode> {
    let live = open_read_models(&global.read_models()?).await?;
    // Both sides have applied the same records before they are compared.
    live.catch_up(log, |_, _| {}).await?;
    let fresh_file = data.path().join("check.db");
    rebuild(&fresh_file, log, |_, _| {}).await?;
    let fresh = Projections::open(&fresh_file).await?;
    let same = live.queries().dump().await? == fresh.queries().dump().await?;
    live.close().await;
    fresh.close().await;
    for suffix in ["", "-wal", "-shm"] {
        // Journals may not exist.
        let _removed = std::fs::remove_file(format!("{}{suffix}", fresh_file.display()));
    }
    match (global.json, same) {
        (true, _) => print_json(&json!({"same": same}))?,
        (false, true) => out_line!("the read models equal a rebuild, byte for byte"),
        (false, false) => {
            out_line!("the read models differ from a rebuild: run `convergio projections rebuild`");
        }
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}
