//! `convergio runs export|import`: a run as a file, from one data folder to another.

use std::io::{BufWriter, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use convergio_application::{Caller, UseCases};
use convergio_eventstore::private_files::PartialFile;
use convergio_eventstore::run_file::{self, RunFileReader, RunImportError, RunImportReport};
use convergio_eventstore::{ExportSigner, Repository, SteadyClock};
use convergio_process::terminal::print_json;
use convergio_process::{exit, out_line};
use convergio_server::LogLocation;
use convergio_server::data_dir::DataDir;
use serde_json::json;

use crate::cli::GlobalOptions;
use crate::target::ServerTarget;

/// Tenant of everything in a data folder.
const OWN_TENANT: &str = "default";

pub(super) async fn export_run(
    global: &GlobalOptions,
    target: &ServerTarget,
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
            return Err(exit::bad_input_error(message));
        }
        return target.client.download_to(&path, &query, &mut std::io::stdout()).await;
    };
    let write_error = |error: std::io::Error| {
        exit::bad_input_error(format!("cannot write {}: {error}", output.display()))
    };
    // Written beside its place and renamed when it was verified: no damaged file takes the name.
    let mut file = BufWriter::new(PartialFile::create_beside(output).map_err(write_error)?);
    target.client.download_to(&path, &query, &mut file).await?;
    let file = file.into_inner().map_err(|error| write_error(error.into_error()))?;
    let (events, signer) = verify_run_file(file.partial_path())?;
    file.persist().map_err(write_error)?;
    match global.json {
        true => print_json(&json!({"file": output, "events": events, "signer": signer}))?,
        false => {
            let signed = signature_text(signer.as_deref(), None);
            out_line!("{events} events written to {}, {signed}", output.display());
        }
    }
    Ok(())
}

/// Text about the signer of a file.
fn signature_text(signer: Option<&str>, own: Option<&str>) -> String {
    match signer {
        None => "unsigned".to_owned(),
        Some(signer) if Some(signer) == own => format!("signed by this folder ({signer})"),
        Some(signer) => format!("signed by {signer}"),
    }
}

/// Reads a file to its end, which verifies it; returns the number of its events and its signer.
fn verify_run_file(file: &Path) -> anyhow::Result<(u64, Option<String>)> {
    let read = || {
        let mut reader = RunFileReader::open(file)?;
        while reader.next_item()?.is_some() {}
        Ok((reader.header().seq.0, reader.signer().map(str::to_owned)))
    };
    read().map_err(|error: run_file::RunFileError| {
        exit::unavailable_error(format!("the export came damaged: {error}"))
    })
}

pub(super) async fn import_run(
    global: &GlobalOptions,
    file: &Path,
    required_signer: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let data = DataDir::find_folder(global.data.as_deref())?;
    let LogLocation::Folder = LogLocation::from_options(&global.log)? else {
        return Err(exit::bad_input_error(
            "a run is imported into a data folder, not into a cluster",
        ));
    };
    let bad_file = |error: &dyn std::fmt::Display| {
        exit::bad_input_error(format!("{}: {error}", file.display()))
    };
    let tenant =
        RunFileReader::open(file).map_err(|error| bad_file(&error))?.header().tenant.clone();
    // A data folder has one tenant: a run of another one could not be seen by its owner.
    if tenant.as_str() != OWN_TENANT {
        let reason = format!("the run is of tenant `{tenant}`, a data folder's is `{OWN_TENANT}`");
        return Err(bad_file(&format!("line 1: {reason}; `convergio replay --file` reads it")));
    }
    let log = LogLocation::Folder.open(&data).await?.as_log_writer();
    let clock = Arc::new(SteadyClock::from_log(&*log).await?);
    let repository = Repository::new(Arc::clone(&log), clock);
    let key = data.payload_key()?;
    let (use_cases, owner) = (UseCases::new(&repository), Caller::new(tenant, "owner".parse()?));
    let imported = use_cases.import_run(&owner, &key, file, required_signer).await;
    log.close().await?;
    let done = imported.map_err(|error| match error {
        RunImportError::Log(_) | RunImportError::Append(_) => {
            exit::unavailable_error(error.to_string())
        }
        other => bad_file(&other),
    })?;
    print_import(global, &done, &ExportSigner::new(&key).fingerprint())?;
    Ok(ExitCode::SUCCESS)
}

fn print_import(
    global: &GlobalOptions,
    imported: &RunImportReport,
    own_signer: &str,
) -> anyhow::Result<()> {
    let RunImportReport { stream, events, added_records: added, signer } = imported;
    let run = stream.id.to_string();
    if global.json {
        let is_own = signer.as_deref() == Some(own_signer);
        return print_json(&json!({"run": run, "events": events, "records_added": added,
            "signer": signer, "signed_by_this_folder": is_own}));
    }
    let signed = signature_text(signer.as_deref(), Some(own_signer));
    match added {
        0 => out_line!("the data folder has run {run} already; the file is {signed}"),
        _ => out_line!(
            "{run}: {events} events, {signed}; it is history and never goes on: look at it with \
            convergio runs debug {run}, go on with convergio runs fork {run}"
        ),
    }
    Ok(())
}
