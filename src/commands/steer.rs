//! `convergio runs`: pause, resume, signal, retry, amend, resolve, fork, diff, state, checkpoints.

use std::collections::BTreeMap;

use convergio_domain::stream::StreamKey;
use convergio_eventstore::{CheckpointFolder, CheckpointStore};
use convergio_process::terminal::print_json;
use convergio_process::{exit, out_line};
use convergio_schemas::wire::{
    AmendRequest, BranchView, CheckpointRequest, CheckpointView, DiffView, ForkAccepted,
    ForkRequest, NodeChange, ReasonRequest, ResolveRequest, RetryRequest, RunView, SignalRequest,
    StateView, StepDecision, StepSide,
};
use convergio_server::data_dir::DataDir;
use serde::Serialize;
use serde_json::json;

use super::graph::json_or_text;
use crate::cli::GlobalOptions;
use crate::cli::steer::{
    AmendArgs, CheckpointsCommand, ForkArgs, ResolveArgs, SteerCommand, StepResolution,
};
use crate::target::ServerTarget;
use crate::view;

/// Runs a command that needs a server.
pub(super) async fn run(
    global: &GlobalOptions,
    target: &ServerTarget,
    command: SteerCommand,
) -> anyhow::Result<()> {
    match command {
        SteerCommand::Pause { id, reason } => {
            post_control(global, target, &id, "pause", &ReasonRequest { reason }, None).await
        }
        SteerCommand::Resume { id } => {
            post_control(global, target, &id, "resume", &json!({}), None).await
        }
        SteerCommand::Signal { id, name, payload, idempotency_key } => {
            let payload = payload.map(|text| json_or_text("--payload", &text)).transpose()?;
            let payload = payload.unwrap_or_default();
            let request = SignalRequest { name, payload };
            post_control(global, target, &id, "signal", &request, idempotency_key.as_deref()).await
        }
        SteerCommand::Retry { id, step } => {
            post_control(global, target, &id, "retry", &RetryRequest { step }, None).await
        }
        SteerCommand::Amend(args) => amend_run(global, target, args).await,
        SteerCommand::Resolve(args) => resolve_step(global, target, args).await,
        SteerCommand::Fork(args) => fork_run(global, target, args).await,
        SteerCommand::Diff { a, b, contents } => diff_runs(global, target, &a, &b, contents).await,
        SteerCommand::State { id, at } => show_state(global, target, &id, at).await,
        SteerCommand::Checkpoints(CheckpointsCommand::Save { id, label }) => {
            save_checkpoint(global, target, id, label).await
        }
        SteerCommand::Checkpoints(_) => Ok(()),
    }
}

async fn post_control(
    global: &GlobalOptions,
    target: &ServerTarget,
    id: &str,
    verb: &str,
    body: &impl Serialize,
    idempotency_key: Option<&str>,
) -> anyhow::Result<()> {
    let path = format!("/v1/runs/{id}/{verb}");
    let run: RunView = target.client.post_json(&path, body, idempotency_key).await?;
    if global.json {
        return print_json(&run);
    }
    out_line!("{} is {}", run.id, run.status);
    Ok(())
}

async fn amend_run(
    global: &GlobalOptions,
    target: &ServerTarget,
    args: AmendArgs,
) -> anyhow::Result<()> {
    let AmendArgs { id, tokens, cost, wall, deadline, graph, version, reason, idempotency_key } =
        args;
    let manifest = graph.as_deref().map(super::graph::read_manifest).transpose()?;
    let request = AmendRequest { tokens, cost, wall, deadline, manifest, version, reason };
    post_control(global, target, &id, "amend", &request, idempotency_key.as_deref()).await
}

async fn resolve_step(
    global: &GlobalOptions,
    target: &ServerTarget,
    args: ResolveArgs,
) -> anyhow::Result<()> {
    let output = args.output.as_deref();
    let output = output.map(|text| json_or_text("--output", text)).transpose()?;
    let request = ResolveRequest {
        step: args.step,
        decision: match args.decision {
            StepResolution::Completed => StepDecision::Completed,
            StepResolution::Failed => StepDecision::Failed,
            StepResolution::Retry => StepDecision::Retry,
            StepResolution::Skip => StepDecision::Skip,
        },
        output,
        reason: args.reason,
    };
    post_control(global, target, &args.id, "resolve", &request, None).await
}

async fn fork_run(
    global: &GlobalOptions,
    target: &ServerTarget,
    args: ForkArgs,
) -> anyhow::Result<()> {
    let manifest = args.graph.as_deref().map(super::graph::read_manifest).transpose()?;
    let mut inputs = BTreeMap::new();
    for given in &args.inputs {
        let (name, text) = given.split_once('=').ok_or_else(|| {
            exit::bad_input_error(format!("--input {given}: right is NAME=VALUE"))
        })?;
        inputs.insert(name.to_owned(), json_or_text(name, text)?);
    }
    let mut nodes = BTreeMap::new();
    let mut model = args.model;
    // With a node, the model is that node's; without one, every agent's.
    if let Some(node) = args.node {
        let model = model.take();
        nodes.insert(node, NodeChange { model, prompt: args.prompt, system: args.system });
    }
    let request = ForkRequest { at: args.at, inputs, manifest, version: None, model, nodes };
    let path = format!("/v1/runs/{}/fork", args.id);
    let key = args.idempotency_key.as_deref();
    let accepted: ForkAccepted = target.client.post_json(&path, &request, key).await?;
    if global.json {
        return print_json(&accepted);
    }
    let from = &accepted.forked_from;
    out_line!("{} goes on from event {} of {}", accepted.run_id, from.seq, from.run_id);
    Ok(())
}

async fn diff_runs(
    global: &GlobalOptions,
    target: &ServerTarget,
    a: &str,
    b: &str,
    contents: bool,
) -> anyhow::Result<()> {
    let query = [("with", b.to_owned()), ("contents", contents.to_string())];
    let diff: DiffView = target.client.get(&format!("/v1/runs/{a}/diff"), &query).await?;
    if global.json {
        return print_json(&diff);
    }
    let row = |name: &str, branch: &BranchView| {
        let usage = &branch.usage;
        let tokens = format!("{} / {}", usage.tokens_in, usage.tokens_out);
        let cost = usage.cost.clone();
        vec![name.to_owned(), branch.run_id.clone(), branch.status.clone(), tokens, cost]
    };
    let header = ["", "run", "status", "tokens in / out", "cost USD"];
    view::print_rows(&header, vec![row("a", &diff.a), row("b", &diff.b)]);
    let side = |side: &Option<StepSide>| match side {
        None => "-".to_owned(),
        Some(side) => {
            let hash = side.output_hash.as_deref().map_or("", |hash| &hash[..12]);
            format!("{} {hash}", side.status).trim().to_owned()
        }
    };
    let rows = diff.steps.iter().map(|step| vec![step.step.clone(), side(&step.a), side(&step.b)]);
    out_line!();
    view::print_rows(&["step", "a", "b"], rows.collect());
    if let Some(common) = &diff.common {
        out_line!("one history up to event {} of {}", common.seq, common.run_id);
    }
    out_line!("{} steps are the same", diff.same);
    if contents {
        print_json(&diff.steps)?;
    }
    Ok(())
}

async fn show_state(
    global: &GlobalOptions,
    target: &ServerTarget,
    id: &str,
    at: Option<u64>,
) -> anyhow::Result<()> {
    let query: Vec<(&str, String)> = at.map(|at| ("at", at.to_string())).into_iter().collect();
    let state: StateView = target.client.get(&format!("/v1/runs/{id}/state"), &query).await?;
    if global.json {
        return print_json(&state);
    }
    let rows = state.steps.iter().map(|step| {
        let error = step.error.as_ref().map(|error| error.code.clone()).unwrap_or_default();
        vec![step.step.clone(), step.status.clone(), step.attempt.to_string(), error]
    });
    view::print_rows(&["step", "state", "try", "error"], rows.collect());
    out_line!(
        "{} after event {}: {}, {} tokens, {} USD, fingerprint {}",
        state.run_id,
        state.seq,
        state.status,
        state.tokens,
        state.cost,
        state.fingerprint
    );
    Ok(())
}

async fn save_checkpoint(
    global: &GlobalOptions,
    target: &ServerTarget,
    id: String,
    label: Option<String>,
) -> anyhow::Result<()> {
    let run: RunView = target.client.get(&format!("/v1/runs/{id}"), &[]).await?;
    let path = format!("/v1/graphs/{}/checkpoint", run.graph_id);
    let request = CheckpointRequest { run_id: id, label };
    let saved: CheckpointView = target.client.post_json(&path, &request, None).await?;
    if global.json {
        return print_json(&saved);
    }
    out_line!("{} can be forked at event {}", saved.run_id, saved.seq);
    Ok(())
}

/// Lists or drops checkpoints in their folder. No server is needed, and a running one is not
/// disturbed: checkpoints are a cache of the log.
pub(super) fn manage_checkpoints(
    global: &GlobalOptions,
    command: &CheckpointsCommand,
) -> anyhow::Result<()> {
    let folder =
        CheckpointFolder::new(&DataDir::find_folder(global.data.as_deref())?.checkpoints_folder());
    match command {
        CheckpointsCommand::List { id } => {
            let events = folder.list_seqs(&run_stream(id, "default")?);
            if global.json {
                return print_json(&json!({"run_id": id, "events": events}));
            }
            for seq in events {
                out_line!("{seq}");
            }
        }
        CheckpointsCommand::Drop { id, tenant } => {
            let stream = id.as_deref().map(|id| run_stream(id, tenant)).transpose()?;
            let dropped = folder.drop_all(stream.as_ref())?;
            match global.json {
                true => print_json(&json!({"dropped": dropped}))?,
                false => out_line!("{dropped} checkpoints are dropped"),
            }
        }
        CheckpointsCommand::Save { .. } => {}
    }
    Ok(())
}

fn run_stream(id: &str, tenant: &str) -> anyhow::Result<StreamKey> {
    let run = id.parse().map_err(|error| exit::bad_input_error(format!("{error}")))?;
    let tenant = tenant.parse().map_err(|error| exit::bad_input_error(format!("{error}")))?;
    Ok(StreamKey::for_run(tenant, run))
}
