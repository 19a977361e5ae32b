//! `convergio replay`: replays one run, the file of one, or all runs under way.

use std::path::Path;
use std::process::ExitCode;

use convergio_domain::graph;
use convergio_eventstore::run_file::RunFile;
use convergio_executor::tool;
use convergio_process::terminal::print_json;
use convergio_process::{exit, out_line};
use convergio_replay::{ReplaySource, replay_report, replay_run};
use convergio_schemas::wire::{FleetReport, FleetRequest, ReplayReport, ReplayRequest, Verdict};

use crate::cli::{GlobalOptions, ReplayArgs};
use crate::target::ServerTarget;
use crate::view;

pub(super) async fn run(global: &GlobalOptions, args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let manifest = args.graph.as_deref().map(super::graph::read_manifest).transpose()?;
    let report = match (&args.file, &args.run) {
        (Some(file), _) => replay_file(file, args.at, manifest).await?,
        (None, Some(run)) => replay_logged_run(global, run, args.at, manifest).await?,
        (None, None) => return replay_fleet(global, manifest).await,
    };
    match global.json {
        true => print_json(&report)?,
        false => print_replay_report(&report),
    }
    Ok(if report.diverges.is_none() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

async fn replay_logged_run(
    global: &GlobalOptions,
    run: &str,
    at: Option<u64>,
    manifest: Option<String>,
) -> anyhow::Result<ReplayReport> {
    let request = ReplayRequest { at, manifest };
    let target = ServerTarget::find_or_start(global, false).await?;
    let reply = target.client.post_json(&format!("/v1/runs/{run}/replay"), &request, None).await;
    target.close().await?;
    reply
}

async fn replay_file(
    file: &Path,
    at: Option<u64>,
    manifest: Option<String>,
) -> anyhow::Result<ReplayReport> {
    let bad_file = |error: &dyn std::fmt::Display| {
        exit::bad_input_error(format!("{}: {error}", file.display()))
    };
    let parsed =
        manifest.map(|text| graph::parse_manifest(&text, &tool::builtin_catalog())).transpose();
    let graph = parsed.map_err(|mistakes| {
        exit::bad_input_error(mistakes.first().map_or_else(String::new, ToString::to_string))
    })?;
    let read = RunFile::open(file).map_err(|error| bad_file(&error))?;
    let outcome =
        replay_run(&ReplaySource::File(&read), at, graph.map(|parsed| parsed.graph)).await;
    Ok(replay_report(&read.stream, outcome.map_err(|error| bad_file(&error))?, None))
}

async fn replay_fleet(
    global: &GlobalOptions,
    manifest: Option<String>,
) -> anyhow::Result<ExitCode> {
    let target = ServerTarget::find_or_start(global, false).await?;
    let request = FleetRequest { manifest };
    let reply = target.client.post_json("/v1/fleet/replay", &request, None).await;
    target.close().await?;
    let report: FleetReport = reply?;
    match global.json {
        true => print_json(&report)?,
        false => print_fleet_report(&report),
    }
    let is_fine = report.compatible == report.runs;
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

fn print_fleet_report(report: &FleetReport) {
    if !report.items.is_empty() {
        let rows = report.items.iter().map(|run| {
            let verdict = match run.verdict {
                Verdict::Compatible => "compatible",
                Verdict::Migrate => "needs migration",
                Verdict::Pin => "pin",
            };
            let reason = run.reason.clone().unwrap_or_default();
            vec![run.run.clone(), run.seq.to_string(), verdict.to_owned(), reason]
        });
        view::print_rows(&["run", "event", "verdict", "why"], rows.collect());
    }
    let FleetReport { runs, compatible, migrate, pin, version, .. } = report;
    let version = version.as_deref().unwrap_or("their own versions");
    out_line!(
        "{runs} runs under way against {version}: {compatible} compatible, {migrate} need \
         migration, {pin} pinned to their version"
    );
}

fn print_replay_report(report: &ReplayReport) {
    let rows = report.steps.iter().map(|step| vec![step.step.clone(), step.status.clone()]);
    view::print_rows(&["step", "state"], rows.collect());
    let read_models = report.rows.map(|rows| format!(", {rows} rows of read models"));
    out_line!(
        "run {}: {} after event {}, {} commits and {} decisions{} computed again",
        report.run,
        report.status,
        report.seq,
        report.commits,
        report.decisions,
        read_models.unwrap_or_default()
    );
    if report.unknown > 0 {
        out_line!(
            "{} decisions were not computed again: what they rest on is not there",
            report.unknown
        );
    }
    match &report.diverges {
        None => out_line!("nothing differs from what was written"),
        Some(found) => {
            let step = found.step.as_deref().unwrap_or("the run");
            out_line!("diverges at event {}, {step}: {}", found.seq, found.what);
            out_line!("  written   {}", found.recorded);
            out_line!("  computed  {}", found.computed);
        }
    }
}
