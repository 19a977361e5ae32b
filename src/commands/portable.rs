//! `convergio runs export|import`: a run as a file, from one data folder to another.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use convergio_domain::decider::Context;
use convergio_eventstore::run_file::{self, ImportError, Imported, Reader};
use convergio_eventstore::{Clock, Repository, SteadyClock};
use serde_json::json;

use super::print_json;
use crate::cli::Global;
use crate::data_dir::DataDir;
use crate::exit;
use crate::log_place::LogPlace;
use crate::target::Target;

/// The tenant of a data folder's owner.
const OWN_TENANT: &str = "default";

pub(super) async fn export(
    global: &Global,
    target: &Target,
    id: &str,
    output: Option<&Path>,
    payloads: bool,
) -> anyhow::Result<()> {
    let path = format!("/v1/runs/{id}/export");
    let query = [("payloads", payloads.to_string())];
    let Some(output) = output else {
        if std::io::stdout().is_terminal() {
            let message = "a run's file is not for a terminal: use --output FILE or a pipe";
            return Err(exit::bad_input(message));
        }
        return target.client.download(&path, &query, &mut std::io::stdout()).await;
    };
    let partial = output.with_extension("part");
    let cannot = |error: std::io::Error| {
        exit::bad_input(format!("cannot write {}: {error}", output.display()))
    };
    let mut file = BufWriter::new(File::create(&partial).map_err(cannot)?);
    let written = match target.client.download(&path, &query, &mut file).await {
        Ok(()) => file.flush().map_err(cannot).and_then(|()| checked(&partial)),
        Err(error) => Err(error),
    };
    match written {
        Ok(events) => {
            std::fs::rename(&partial, output).map_err(cannot)?;
            match global.json {
                true => print_json(&json!({"file": output, "events": events})),
                false => {
                    out_line!("{events} events written to {}", output.display());
                    Ok(())
                }
            }
        }
        Err(error) => {
            // What is half written is of no use.
            let _removed = std::fs::remove_file(&partial);
            Err(error)
        }
    }
}

/// Reads a file to its end; gives the number of its events.
fn checked(file: &Path) -> anyhow::Result<u64> {
    let read = || {
        let mut reader = Reader::open(file)?;
        while reader.next_item()?.is_some() {}
        Ok(reader.header().seq.0)
    };
    read().map_err(|error: run_file::FileError| {
        exit::unavailable(format!("the export came damaged: {error}"))
    })
}

pub(super) async fn import(global: &Global, file: &Path) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref());
    let LogPlace::Folder = LogPlace::find(global)? else {
        return Err(exit::bad_input("a run is imported into a data folder, not into a cluster"));
    };
    let wrong =
        |error: &dyn std::fmt::Display| exit::bad_input(format!("{}: {error}", file.display()));
    let tenant = Reader::open(file).map_err(|error| wrong(&error))?.header().tenant.clone();
    if tenant.as_str() != OWN_TENANT {
        let reason = format!("the run is of tenant `{tenant}`, a data folder's is `{OWN_TENANT}`");
        return Err(wrong(&format!("line 1: {reason}; `convergio replay --file` reads it")));
    }
    let log = LogPlace::Folder.open(&data).await?.shared();
    let clock = Arc::new(SteadyClock::of_log(&*log).await?);
    let context = Context { now: clock.now(), actor: "owner".parse()? };
    let repository = Repository::new(Arc::clone(&log), clock);
    let done = run_file::import(&repository, &data.payload_key()?, file, &context).await;
    log.close().await?;
    let Imported { stream, events, added } = done.map_err(|error| match error {
        ImportError::File(_) | ImportError::Conflict { .. } | ImportError::Graph(_) => {
            wrong(&error)
        }
        other => exit::unavailable(other.to_string()),
    })?;
    let run = stream.id.to_string();
    match global.json {
        true => print_json(&json!({"run": run, "events": events, "records_added": added}))?,
        false if added == 0 => out_line!("the data folder has run {run} already"),
        false => out_line!("{run}: {events} events; look at it: convergio runs debug {run}"),
    }
    Ok(ExitCode::SUCCESS)
}
