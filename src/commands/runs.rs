//! `convergio runs`: lists, shows, exports, migrates and cancels runs; other files have the rest.

use std::process::ExitCode;

use convergio_process::out_line;
use convergio_process::terminal::{self, print_json};
use convergio_schemas::wire::{
    EventEnvelope, MigrateReport, MigrateRequest, Page, RunView, Verdict,
};
use serde_json::{Value, json};

use super::{debug, graph, run_transfer, steer};
use crate::cli::steer::{CheckpointsCommand, SteerCommand};
use crate::cli::{GlobalOptions, RunsCommand};
use crate::target::ServerTarget;
use crate::view;

pub(super) async fn run(global: &GlobalOptions, command: RunsCommand) -> anyhow::Result<ExitCode> {
    // Tailing executes runs if it starts a server; the other commands only look.
    if let RunsCommand::Tail { id } = &command {
        let target = ServerTarget::find_or_start(global, true).await?;
        return graph::watch_run(global, target, id).await;
    }
    // Checkpoints are files beside the log: no server is needed to list or drop them.
    if let RunsCommand::Steer(SteerCommand::Checkpoints(command)) = &command
        && !matches!(command, CheckpointsCommand::Save { .. })
    {
        return steer::manage_checkpoints(global, command).map(|()| ExitCode::SUCCESS);
    }
    match command {
        RunsCommand::Import { file, signer } => {
            return run_transfer::import_run(global, &file, signer.as_deref()).await;
        }
        RunsCommand::Debug { id, file } => {
            return debug::run(global, id.as_deref(), file.as_deref()).await;
        }
        _ => {}
    }
    let target = ServerTarget::find_or_start(global, false).await?;
    let done = match command {
        RunsCommand::List { status, parent, all, limit } => {
            list_runs(global, &target, &runs_query(status, parent, all, limit)).await
        }
        RunsCommand::Show { id } => show_run(global, &target, &id).await,
        RunsCommand::Events { id, after, payloads } => {
            print_events(&target, &id, after, payloads).await
        }
        RunsCommand::Cancel { id, reason } => cancel_run(global, &target, &id, reason).await,
        RunsCommand::Steer(command) => steer::run(global, &target, command).await,
        RunsCommand::Export { id, output, without_payloads } => {
            run_transfer::export_run(global, &target, &id, output.as_deref(), !without_payloads)
                .await
        }
        RunsCommand::Migrate { id, graph, version } => {
            migrate_run(global, &target, &id, graph.as_deref(), version).await
        }
        RunsCommand::Tail { .. } | RunsCommand::Import { .. } | RunsCommand::Debug { .. } => Ok(()),
    };
    target.close().await?;
    done.map(|()| ExitCode::SUCCESS)
}

fn runs_query(
    status: Option<String>,
    parent: Option<String>,
    all: bool,
    limit: u16,
) -> Vec<(&'static str, String)> {
    let mut query = vec![("limit", limit.to_string())];
    query.extend(status.map(|status| ("status", status)));
    query.extend(parent.map(|parent| ("parent", parent)));
    query.extend(all.then(|| ("all", "true".to_owned())));
    query
}

async fn list_runs(
    global: &GlobalOptions,
    target: &ServerTarget,
    query: &[(&str, String)],
) -> anyhow::Result<()> {
    let page: Page<RunView> = target.client.get("/v1/runs", query).await?;
    if global.json {
        return print_json(&page);
    }
    let rows = page.items.into_iter().map(|run| {
        let steps = format!("{}/{}", run.steps_done, run.steps_total);
        let tokens = format!("{} / {}", run.usage.tokens_in, run.usage.tokens_out);
        let parent = run.parent.map_or_else(String::new, |parent| parent.run_id);
        let (graph, cost, created) = (run.graph_name, run.usage.cost, run.created_at);
        let status = match run.imported {
            Some(_) => format!("{}, imported", run.status),
            None => run.status,
        };
        vec![run.id, graph, status, steps, tokens, cost, created, parent]
    });
    let header =
        ["run", "graph", "status", "steps", "tokens in / out", "cost USD", "created", "within"];
    view::print_rows(&header, rows.collect());
    Ok(())
}

async fn show_run(global: &GlobalOptions, target: &ServerTarget, id: &str) -> anyhow::Result<()> {
    let run: RunView = target.client.get(&format!("/v1/runs/{id}"), &[]).await?;
    if global.json {
        return print_json(&run);
    }
    view::write_tree(&mut std::io::stdout(), &run)?;
    if run.output.is_some() {
        out_line!();
    }
    match &run.output {
        Some(Value::String(text)) => terminal::print_text(text),
        Some(value) => terminal::print_json(value)?,
        None => {}
    }
    Ok(())
}

async fn print_events(
    target: &ServerTarget,
    id: &str,
    after: u64,
    payloads: bool,
) -> anyhow::Result<()> {
    let mut after = after;
    loop {
        let query = [
            ("after", after.to_string()),
            ("limit", "500".into()),
            ("payloads", payloads.to_string()),
        ];
        let path = format!("/v1/runs/{id}/events");
        let page: Page<EventEnvelope> = target.client.get(&path, &query).await?;
        for event in &page.items {
            terminal::print_json_line(event)?;
            after = event.seq;
        }
        if page.next_cursor.is_none() {
            return Ok(());
        }
    }
}

async fn migrate_run(
    global: &GlobalOptions,
    target: &ServerTarget,
    id: &str,
    manifest: Option<&std::path::Path>,
    version: Option<String>,
) -> anyhow::Result<()> {
    let manifest = manifest.map(graph::read_manifest).transpose()?;
    let request = MigrateRequest { version, manifest };
    let path = format!("/v1/runs/{id}/migrate");
    let report: MigrateReport = target.client.post_json(&path, &request, None).await?;
    if global.json {
        return print_json(&report);
    }
    let MigrateReport { run, from, to, seq, verdict } = report;
    let history_verdict = match verdict {
        Verdict::Compatible => "which would have done the same",
        _ => "which would have done otherwise so far",
    };
    match from == to {
        true => out_line!("{run} has version {to} already"),
        false => out_line!("{run} goes on from event {seq} by version {to}, {history_verdict}"),
    }
    Ok(())
}

async fn cancel_run(
    global: &GlobalOptions,
    target: &ServerTarget,
    id: &str,
    reason: Option<String>,
) -> anyhow::Result<()> {
    let path = format!("/v1/runs/{id}/cancel");
    let run: RunView = target.client.post_json(&path, &json!({"reason": reason}), None).await?;
    if global.json {
        return print_json(&run);
    }
    out_line!("{} is {}", run.id, run.status);
    Ok(())
}
