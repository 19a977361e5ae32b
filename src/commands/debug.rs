//! `convergio runs debug`: opens the debug view of a run of the log or of a file.

use std::io::{Cursor, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use convergio_eventstore::run_file::{Reader, RunFile};

use crate::cli::Global;
use crate::debugger::{self, Steps, View};
use crate::exit;
use crate::target::Target;
use crate::terminal;

pub(super) async fn run(
    global: &Global,
    id: Option<&str>,
    file: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let run = match (id, file) {
        (_, Some(file)) => RunFile::open(file)
            .map_err(|error| exit::bad_input(format!("{}: {error}", file.display())))?,
        (Some(id), None) => fetched(global, id).await?,
        (None, None) => return Err(exit::bad_input("name a run, or its --file")),
    };
    let steps = Steps::new(run);
    if global.json {
        for index in 0..steps.len() {
            terminal::print_json_line(&steps.at(index))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(exit::bad_input(
            "the debug view needs a terminal; for scripts there is --json",
        ));
    }
    // The view blocks on keys, which would hold up a thread of the runtime.
    tokio::task::spawn_blocking(move || debugger::show(View::new(steps))).await??;
    Ok(ExitCode::SUCCESS)
}

/// Fetches a run as the file that its server exports.
async fn fetched(global: &Global, id: &str) -> anyhow::Result<RunFile> {
    let target = Target::find(global, false).await?;
    let mut bytes = Vec::new();
    let path = format!("/v1/runs/{id}/export");
    let got = target.client.download(&path, &[], &mut bytes).await;
    target.close().await?;
    got?;
    let read = Reader::new(Cursor::new(bytes)).and_then(RunFile::read);
    read.map_err(|error| exit::unavailable(format!("the export came damaged: {error}")))
}
