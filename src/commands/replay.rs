//! `convergio replay`.

use std::process::ExitCode;

use convergio_schemas::wire::{ReplayReport, ReplayRequest};

use super::print_json;
use crate::cli::{Global, ReplayArgs};
use crate::exit;
use crate::target::Target;
use crate::view;

pub(super) async fn run(global: &Global, args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let manifest = args.graph.as_deref().map(super::graph::read).transpose()?;
    let request = ReplayRequest { at: args.at, manifest };
    let target = Target::find(global, false).await?;
    let path = format!("/v1/runs/{}/replay", args.run);
    let asked = target.client.post(&path, &request, None).await;
    target.close().await?;
    let report: ReplayReport = asked?;
    match global.json {
        true => print_json(&report)?,
        false => show(&report),
    }
    Ok(if report.diverges.is_none() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

fn show(report: &ReplayReport) {
    let rows = report.steps.iter().map(|step| vec![step.step.clone(), step.status.clone()]);
    view::table(&["step", "state"], rows.collect());
    println!(
        "run {}: {} after event {}, {} commits and {} decisions computed again",
        report.run, report.status, report.seq, report.commits, report.decisions
    );
    match &report.diverges {
        None => println!("nothing differs from what was written"),
        Some(found) => {
            let step = found.step.as_deref().unwrap_or("the run");
            println!("diverges at event {}, {step}: {}", found.seq, found.what);
            println!("  written   {}", found.recorded);
            println!("  computed  {}", found.computed);
        }
    }
}
