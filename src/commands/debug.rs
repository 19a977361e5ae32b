//! `convergio runs debug`: opens the debug view of a run of the log or of a file.

use std::io::{Cursor, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use convergio_eventstore::run_file::{RunFile, RunFileReader};
use convergio_process::{exit, terminal};

use crate::cli::GlobalOptions;
use crate::debugger::{self, DebugTimeline, DebugView};
use crate::target::ServerTarget;

pub(super) async fn run(
    global: &GlobalOptions,
    id: Option<&str>,
    file: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let run = match (id, file) {
        (_, Some(file)) => RunFile::open(file)
            .map_err(|error| exit::bad_input_error(format!("{}: {error}", file.display())))?,
        (Some(id), None) => fetch_run_file(global, id).await?,
        (None, None) => return Err(exit::bad_input_error("name a run, or its --file")),
    };
    let steps = DebugTimeline::new(run);
    if global.json {
        for index in 0..steps.len() {
            terminal::print_json_line(&steps.step_at(index))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(exit::bad_input_error(
            "the debug view needs a terminal; for scripts there is --json",
        ));
    }
    // The view blocks on keys, which would hold up a thread of the runtime.
    tokio::task::spawn_blocking(move || debugger::show_view(DebugView::new(steps))).await??;
    Ok(ExitCode::SUCCESS)
}

/// Fetches a run as the file that its server exports.
async fn fetch_run_file(global: &GlobalOptions, id: &str) -> anyhow::Result<RunFile> {
    let target = ServerTarget::find_or_start(global, false).await?;
    let mut bytes = Vec::new();
    let path = format!("/v1/runs/{id}/export");
    let download = target.client.download_to(&path, &[], &mut bytes).await;
    target.close().await?;
    download?;
    let read = RunFileReader::new(Cursor::new(bytes)).and_then(RunFile::from_reader);
    read.map_err(|error| exit::unavailable_error(format!("the export came damaged: {error}")))
}
