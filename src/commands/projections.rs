//! `convergio projections`: rebuilds and checks read models. The data folder must not be in use.

use std::process::ExitCode;

use convergio_eventstore::EventLog;
use convergio_process::terminal::print_json;
use convergio_process::{err_line, exit, out_line};
use convergio_projections::{Projections, rebuild_read_models};
use convergio_server::data_dir::DataDir;
use convergio_server::{LogLocation, open_read_models};
use serde_json::json;

use crate::cli::{GlobalOptions, ProjectionsCommand};

pub(super) async fn run(
    global: &GlobalOptions,
    command: ProjectionsCommand,
) -> anyhow::Result<ExitCode> {
    let data = DataDir::find_folder(global.data.as_deref())?;
    let log = LogLocation::from_options(&global.log)?.open(&data).await?.as_log_writer();
    let done = match command {
        ProjectionsCommand::Rebuild => rebuild_models(global, &data, &*log).await,
        ProjectionsCommand::Check => check_models(global, &data, &*log).await,
    };
    log.close().await?;
    done
}

async fn rebuild_models(
    global: &GlobalOptions,
    data: &DataDir,
    log: &dyn EventLog,
) -> anyhow::Result<ExitCode> {
    let mut records = 0;
    rebuild_read_models(global.read_models.to_store(data), log, |at, tail| {
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

async fn check_models(
    global: &GlobalOptions,
    data: &DataDir,
    log: &dyn EventLog,
) -> anyhow::Result<ExitCode> {
    let current_models = open_read_models(&global.read_models.to_store(data)).await?;
    // Both sides have applied the same records before they are compared.
    current_models.catch_up(log, |_, _| {}).await?;
    let rebuilt_file = data.as_path().join("check.db");
    rebuild_read_models(&rebuilt_file, log, |_, _| {}).await?;
    let rebuilt_models = Projections::open(&rebuilt_file).await?;
    let is_same = current_models.query_handle().dump_tables().await?
        == rebuilt_models.query_handle().dump_tables().await?;
    current_models.close().await;
    rebuilt_models.close().await;
    for suffix in ["", "-wal", "-shm"] {
        // Journals may not exist.
        let _removed = std::fs::remove_file(format!("{}{suffix}", rebuilt_file.display()));
    }
    match (global.json, is_same) {
        (true, _) => print_json(&json!({"same": is_same}))?,
        (false, true) => out_line!("the read models equal a rebuild, byte for byte"),
        (false, false) => {
            out_line!("the read models differ from a rebuild: run `convergio projections rebuild`");
        }
    }
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}
