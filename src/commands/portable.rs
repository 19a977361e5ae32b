//! `convergio runs export|import`: a run as a file, from one data folder to another.

use std::io::{BufWriter, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use convergio_domain::decider::Context;
use convergio_eventstore::private_files::PartialFile;
use convergio_eventstore::run_file::{self, ImportError, ImportOptions, Imported, Reader};
use convergio_eventstore::{Clock, ExportSigner, Repository, SteadyClock};
use serde_json::json;

use super::print_json;
use crate::cli::Global;
use crate::data_dir::DataDir;
use crate::exit;
use crate::log_place::LogPlace;
use crate::target::Target;

/// Tenant of everything in a data folder.
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
        // Payloads may hold anything, and a file of them would flood the screen.
        if std::io::stdout().is_terminal() {
            let message = "a run's file is not for a terminal: use --output FILE or a pipe";
            return Err(exit::bad_input(message));
        }
        return target.client.download(&path, &query, &mut std::io::stdout()).await;
    };
    let cannot = |error: std::io::Error| {
        exit::bad_input(format!("cannot write {}: {error}", output.display()))
    };
    // Written beside its place and renamed when it was verified: no damaged file takes the name.
    let mut file = BufWriter::new(PartialFile::create(output).map_err(cannot)?);
    target.client.download(&path, &query, &mut file).await?;
    let file = file.into_inner().map_err(|error| cannot(error.into_error()))?;
    let (events, signer) = checked(file.path())?;
    file.keep().map_err(cannot)?;
    match global.json {
        true => print_json(&json!({"file": output, "events": events, "signer": signer}))?,
        false => {
            let signed = signature(signer.as_deref(), None);
            out_line!("{events} events written to {}, {signed}", output.display());
        }
    }
    Ok(())
}

/// Text about the signer of a file.
fn signature(signer: Option<&str>, own: Option<&str>) -> String {
    match signer {
        None => "unsigned".to_owned(),
        Some(signer) if Some(signer) == own => format!("signed by this folder ({signer})"),
        Some(signer) => format!("signed by {signer}"),
    }
}

/// Reads a file to its end, which verifies it; returns the number of its events and its signer.
fn checked(file: &Path) -> anyhow::Result<(u64, Option<String>)> {
    let read = || {
        let mut reader = Reader::open(file)?;
        while reader.next_item()?.is_some() {}
        Ok((reader.header().seq.0, reader.signer().map(str::to_owned)))
    };
    read().map_err(|error: run_file::FileError| {
        exit::unavailable(format!("the export came damaged: {error}"))
    })
}

pub(super) async fn import(
    global: &Global,
    file: &Path,
    demanded: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref())?;
    let LogPlace::Folder = LogPlace::find(global)? else {
        return Err(exit::bad_input("a run is imported into a data folder, not into a cluster"));
    };
    let wrong =
        |error: &dyn std::fmt::Display| exit::bad_input(format!("{}: {error}", file.display()));
    let tenant = Reader::open(file).map_err(|error| wrong(&error))?.header().tenant.clone();
    // A data folder has one tenant: a run of another one could not be seen by its owner.
    if tenant.as_str() != OWN_TENANT {
        let reason = format!("the run is of tenant `{tenant}`, a data folder's is `{OWN_TENANT}`");
        return Err(wrong(&format!("line 1: {reason}; `convergio replay --file` reads it")));
    }
    let log = LogPlace::Folder.open(&data).await?.shared();
    let clock = Arc::new(SteadyClock::of_log(&*log).await?);
    let context = Context { now: clock.now(), actor: "owner".parse()? };
    let repository = Repository::new(Arc::clone(&log), clock);
    let key = data.payload_key()?;
    let options = ImportOptions { context: &context, signer: demanded };
    let done = run_file::import(&repository, &key, file, options).await;
    log.close().await?;
    let done = done.map_err(|error| match error {
        ImportError::Log(_) | ImportError::Append(_) => exit::unavailable(error.to_string()),
        other => wrong(&other),
    })?;
    tell_import(global, &done, &ExportSigner::new(&key).fingerprint())?;
    Ok(ExitCode::SUCCESS)
}

fn tell_import(global: &Global, done: &Imported, own: &str) -> anyhow::Result<()> {
    let Imported { stream, events, added, signer } = done;
    let run = stream.id.to_string();
    if global.json {
        let is_own = signer.as_deref() == Some(own);
        return print_json(&json!({"run": run, "events": events, "records_added": added,
            "signer": signer, "signed_by_this_folder": is_own}));
    }
    let signed = signature(signer.as_deref(), Some(own));
    match added {
        0 => out_line!("the data folder has run {run} already; the file is {signed}"),
        _ => out_line!(
            "{run}: {events} events, {signed}; it is history and never goes on: look at it with \
            convergio runs debug {run}, go on with convergio runs fork {run}"
        ),
    }
    Ok(())
}
