//! `convergio demo`: a brief of a real document by a real model on this machine.

use std::process::ExitCode;

use convergio_process::{err_line, exit, out_line, terminal};
use convergio_schemas::wire::{AuditEntry, LedgerView, Page, RunView};
use serde_json::json;

use super::{graph, lists};
use crate::cli::{DemoArgs, GlobalOptions};
use crate::target::ServerTarget;
use crate::view::{self, LiveTree};

/// Maximum audit entries that are shown; the rest is counted.
const AUDIT_LIMIT: usize = 8;

pub(super) async fn run(global: &GlobalOptions, args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).map_err(|error| {
            exit::bad_input_error(format!("cannot read {}: {error}", path.display()))
        })
    };
    let (manifest, document) = (read(&args.graph)?, read(&args.document)?);
    let target = ServerTarget::find_or_start(global, true).await?;
    err_line!("running {} on {} ...", args.graph.display(), args.document.display());
    let run = graph::submit_run(&target, manifest, json!({"doc": document}), None, None).await?;
    let mut tree = LiveTree::new();
    target.client.follow_run(&run.run_id, 0, |frame| tree.apply_frame(frame)).await?;
    tree.clear_line();
    let completed = print_report(&target, &run.run_id).await?;
    out_line!("\nThe server runs at {}", target.client.base_url());
    if args.exit || target.own_server.is_none() {
        target.close().await?;
    } else {
        out_line!("Ctrl-C ends it. Meanwhile: convergio runs show {}", run.run_id);
        tokio::signal::ctrl_c().await?;
        target.close().await?;
    }
    Ok(if completed { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Prints the result, the steps, the ledger and the audit trail; returns whether the run completed.
async fn print_report(target: &ServerTarget, run: &str) -> anyhow::Result<bool> {
    let view: RunView = target.client.get(&format!("/v1/runs/{run}"), &[]).await?;
    out_line!("\n== Result\n");
    match view.output.as_ref().and_then(|output| output.as_str()) {
        Some(text) => terminal::print_text(text),
        None => terminal::print_json(&view.output)?,
    }
    out_line!("\n== Steps\n");
    view::write_tree(&mut std::io::stdout(), &view)?;
    out_line!("\n== Ledger\n");
    let of_run = [("run", run.to_owned()), ("limit", "1000".to_owned())];
    let ledger: LedgerView = target.client.get("/v1/ledger", &of_run).await?;
    lists::print_ledger(&ledger);
    out_line!("\n== Audit (the last {AUDIT_LIMIT} entries of the run)\n");
    let query = [("stream", format!("run/{run}")), ("limit", "1000".to_owned())];
    let audit: Page<AuditEntry> = target.client.get("/v1/audit", &query).await?;
    let from = audit.items.len().saturating_sub(AUDIT_LIMIT);
    lists::print_audit(&audit.items[from..]);
    out_line!("{} entries in all", audit.items.len());
    Ok(view.status == "completed")
}
