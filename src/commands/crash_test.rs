//! `convergio crash-test`: checks the graph and its inputs, then runs the test and prints its
//! report.

use std::io::IsTerminal;
use std::process::ExitCode;

use convergio_crash_test::{
    CrashFindings, CrashPoint, CrashTestPlan, CrashTestReport, ModelProxy, calls_models,
    run_crash_test, wait_at_crash_point,
};
use convergio_domain::graph::manifest::{GraphNode, NodeWork};
use convergio_domain::graph::{self, check_inputs};
use convergio_eventstore::private_files::create_private_folder;
use convergio_executor::tool;
use convergio_local_models::managed_model::{self, ModelAccess};
use convergio_process::terminal::{self, print_json};
use convergio_process::{err_line, exit, out_line};
use convergio_server::data_dir::DataDir;
use convergio_server::model_servers::{find_model_servers, is_consented, print_detected};
use uuid::Uuid;

use crate::cli::{CrashPointArgs, CrashTestArgs, GlobalOptions};

pub(super) async fn run(global: &GlobalOptions, args: &CrashTestArgs) -> anyhow::Result<ExitCode> {
    let manifest = super::graph::read_manifest(&args.file)?;
    let name = args.file.display();
    let parsed =
        graph::parse_manifest(&manifest, &tool::builtin_catalog()).map_err(|mistakes| {
            mistakes.iter().for_each(|mistake| err_line!("{name}:{mistake}"));
            exit::bad_input_error(format!("{name} has {} mistakes", mistakes.len()))
        })?;
    let graph = parsed.graph;
    // A crash test has one log with one run in it: another graph's version would be missing there.
    let is_sub_graph = |node: &&GraphNode| matches!(node.work, NodeWork::Graph(_));
    if let Some(node) = graph.nodes.iter().find(is_sub_graph) {
        let reason =
            "runs another graph, which a crash test does not have: test that one by itself";
        return Err(exit::bad_input_error(format!("{name}: node {} {reason}", node.id)));
    }
    let inputs = super::graph::named_inputs(&args.inputs, &args.input_files)?;
    // Checked here, because the engine under test would only report a failed run.
    let wrong = check_inputs(&graph.inputs, &inputs);
    if !wrong.is_empty() {
        return Err(exit::bad_input_error(wrong.join("; ")));
    }
    let (mut models, mut managed) = (Vec::new(), None);
    if calls_models(&graph) {
        (models, managed) = start_model_proxies(global).await?;
    }
    let folder = std::env::temp_dir().join(format!("convergio-crash-test-{}", Uuid::now_v7()));
    create_private_folder(&folder)?;
    let (sample, kills) = (args.sample, args.kills);
    let plan = CrashTestPlan { graph, inputs, sample, kills, models, folder: folder.clone() };
    let shows_progress = std::io::stderr().is_terminal() && !global.json;
    let test = run_crash_test(plan, |number, all| {
        if shows_progress {
            terminal::rewrite_line(&format!("{number} of {all} deaths"));
        }
    });
    let result = test.await;
    if shows_progress {
        err_line!();
    }
    drop(managed);
    std::fs::remove_dir_all(&folder)?;
    let report = result?;
    match global.json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Starts a proxy in front of each model server of this machine, or of the managed one, which is
/// started if no other answers.
async fn start_model_proxies(
    global: &GlobalOptions,
) -> anyhow::Result<(Vec<ModelProxy>, Option<managed_model::ManagedModel>)> {
    let mut found = find_model_servers(&global.model_urls).await?;
    print_detected(&global.model_urls, &found);
    // A proxy cannot tell private requests from others, so it may only stand before servers with
    // consent.
    found.retain(is_consented);
    let mut managed = None;
    if found.is_empty() && global.model_urls.is_empty() {
        let data = DataDir::find_folder(global.data.as_deref())?;
        if let Some(folder) = managed_model::installed_folder() {
            data.create_folder()?;
            let log = data.as_path().join("model.log");
            let model =
                managed_model::start_managed_model(&folder, &log, ModelAccess::Machine).await?;
            found.push(model.server.clone());
            managed = Some(model);
        }
    }
    if found.is_empty() {
        return Err(exit::bad_input_error(
            "the graph asks models, and no model server answers on this machine: start one, name \
             one by --model-url, or set one up with `convergio models install`",
        ));
    }
    // One proxy for each server, so that calls are counted wherever they go.
    let mut proxies = Vec::new();
    for server in found {
        proxies.push(ModelProxy::start(&server.base_url).await?);
    }
    Ok((proxies, managed))
}

pub(super) async fn run_to_crash_point(
    global: &GlobalOptions,
    args: &CrashPointArgs,
) -> anyhow::Result<ExitCode> {
    let data = DataDir::find_folder(global.data.as_deref())?;
    let point = CrashPoint { commit: args.commit, moment: args.moment };
    wait_at_crash_point(data.as_path(), &global.model_urls, point).await?;
    Ok(ExitCode::SUCCESS)
}

fn print_report(report: &CrashTestReport) {
    let CrashTestReport { graph, commits, deaths, kills, not_reached, findings, .. } = report;
    let CrashFindings { unknown_steps, model_calls, model_questions, .. } = findings;
    out_line!(
        "{graph}: {commits} commits, {deaths} deaths of the engine, {kills} processes killed"
    );
    if *not_reached > 0 {
        out_line!("  {not_reached} places were not reached: commits fell together otherwise");
    }
    out_line!("  {unknown_steps} steps had unknown outcomes and were done again");
    if *model_calls > 0 {
        out_line!("  {model_calls} intents to call a model, {model_questions} questions to it");
    }
    for (what, found) in [
        ("repeated effects", &findings.repeated_effects),
        ("lost or doubled usage", &findings.usage),
        ("divergences", &findings.divergences),
        ("other ends", &findings.outcomes),
    ] {
        out_line!("  {} {what}", found.len());
        found.iter().for_each(|line| out_line!("    {line}"));
    }
}
