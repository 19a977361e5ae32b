//! `convergio graph validate|run`, and what other commands share: manifests, inputs, submission,
//! watching and detaching of runs.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use convergio_domain::graph;
use convergio_domain::json::{JsonError, read_json};
use convergio_eventstore::private_files::create_private_file;
use convergio_executor::tool;
use convergio_process::terminal::{self, print_json};
use convergio_process::{err_line, exit, out_line};
use convergio_schemas::wire::{ExecuteRequest, Frame, GraphAccepted, RunAccepted, RunView};
use convergio_server::data_dir::DataDir;
use serde_json::{Map, Value, json};

use crate::cli::{GlobalOptions, GraphCommand, RunArgs};
use crate::target::ServerTarget;
use crate::view::{self, LiveTree};

pub(super) async fn run(global: &GlobalOptions, command: GraphCommand) -> anyhow::Result<ExitCode> {
    match command {
        GraphCommand::Validate { files } => validate_manifests(global, &files),
        GraphCommand::Run(args) => execute_graph(global, &args).await,
    }
}

pub(super) fn read_manifest(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file)
        .map_err(|error| exit::bad_input_error(format!("cannot read {}: {error}", file.display())))
}

fn validate_manifests(
    global: &GlobalOptions,
    files: &[std::path::PathBuf],
) -> anyhow::Result<ExitCode> {
    // All files are checked before the exit code is decided.
    let mut is_valid = true;
    let mut report = Vec::new();
    for file in files {
        let parsed = graph::parse_manifest(&read_manifest(file)?, &tool::builtin_catalog());
        let name = file.display().to_string();
        match parsed {
            Ok(parsed) => {
                let (graph, warnings) = (parsed.graph, parsed.warnings);
                if !global.json {
                    out_line!("{name}: valid, {} nodes", graph.nodes.len());
                    warnings.iter().for_each(|warning| out_line!("{name}:{warning} (warning)"));
                }
                report
                    .push(json!({"file": name, "valid": true, "version": graph.compute_version(),
                    "warnings": warnings}));
            }
            Err(mistakes) => {
                is_valid = false;
                if !global.json {
                    mistakes.iter().for_each(|mistake| out_line!("{name}:{mistake}"));
                }
                report.push(json!({"file": name, "valid": false, "mistakes": mistakes}));
            }
        }
    }
    if global.json {
        print_json(&report)?;
    }
    Ok(if is_valid { ExitCode::SUCCESS } else { ExitCode::from(exit::BAD_INPUT) })
}

/// Inputs of the command line as one object.
fn inputs_of_run(args: &RunArgs) -> anyhow::Result<Value> {
    named_inputs(&args.inputs, &args.input_files)
}

/// Inputs as one object, from NAME=VALUE and from NAME=PATH, whose text is the file's.
pub(super) fn named_inputs(values: &[String], files: &[String]) -> anyhow::Result<Value> {
    let mut inputs = Map::new();
    let split = |text: &str| -> anyhow::Result<(String, String)> {
        let wrong = || exit::bad_input_error(format!("`{text}` is not NAME=VALUE"));
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        Ok((name.to_owned(), value.to_owned()))
    };
    for input in values {
        let (name, value) = split(input)?;
        let value = json_or_text(&name, &value)?;
        inputs.insert(name, value);
    }
    for input in files {
        let (name, path) = split(input)?;
        inputs.insert(name, Value::String(read_manifest(Path::new(&path))?));
    }
    Ok(Value::Object(inputs))
}

/// Parses a value of the option `name`: JSON if it can be parsed as such, else text. Integers
/// beyond JSON's exact range are an error and not text.
pub(super) fn json_or_text(name: &str, text: &str) -> anyhow::Result<Value> {
    match read_json(text.as_bytes()) {
        Ok(value) => Ok(value),
        Err(JsonError::Unreadable(_)) => Ok(Value::String(text.to_owned())),
        Err(JsonError::WholeNumber(error)) => {
            Err(exit::bad_input_error(format!("{name}: {error}")))
        }
    }
}

async fn execute_graph(global: &GlobalOptions, args: &RunArgs) -> anyhow::Result<ExitCode> {
    let (manifest, inputs) = (read_manifest(&args.file)?, inputs_of_run(args)?);
    // Checked here first: mistakes are shown with the file's name, before a server is started.
    if let Err(mistakes) = graph::parse_manifest(&manifest, &tool::builtin_catalog()) {
        let name = args.file.display();
        mistakes.iter().for_each(|mistake| err_line!("{name}:{mistake}"));
        return Err(exit::bad_input_error(format!("{name} has {} mistakes", mistakes.len())));
    }
    let target = ServerTarget::find_or_start(global, true).await?;
    let key = args.idempotency_key.as_deref();
    let run = submit_run(&target, manifest, inputs, args.privacy.as_deref(), key).await;
    let run = match run {
        Ok(run) => run,
        Err(error) => {
            target.close().await?;
            return Err(error);
        }
    };
    if args.detach {
        return detach_run(global, target, &run.run_id).await;
    }
    watch_run(global, target, &run.run_id).await
}

/// Registers a manifest and creates a run of it.
pub(super) async fn submit_run(
    target: &ServerTarget,
    manifest: String,
    inputs: Value,
    privacy: Option<&str>,
    idempotency_key: Option<&str>,
) -> anyhow::Result<RunAccepted> {
    let graph: GraphAccepted = target.client.post_manifest("/v1/graphs", manifest).await?;
    let privacy = privacy.map(str::to_owned);
    let request = ExecuteRequest { inputs, version: Some(graph.version), privacy };
    target
        .client
        .post_json(&format!("/v1/graphs/{}/execute", graph.id), &request, idempotency_key)
        .await
}

/// Shows a run until its end or Ctrl-C, then its result.
pub(super) async fn watch_run(
    global: &GlobalOptions,
    target: ServerTarget,
    run: &str,
) -> anyhow::Result<ExitCode> {
    let mut tree = LiveTree::new();
    let json = global.json;
    let follow = target.client.follow_run(run, 0, |frame| {
        if !json {
            tree.apply_frame(frame);
        } else if matches!(frame, Frame::Event(_)) {
            // Serialising a frame cannot fail.
            let _printed = terminal::print_json_line(frame);
        }
    });
    let outcome = tokio::select! {
        ended = follow => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
    };
    tree.clear_line();
    match outcome {
        None => detach_run(global, target, run).await,
        Some(ended) => {
            let shown = match ended {
                Ok(()) => show_result(global, &target, run).await,
                Err(error) => Err(error),
            };
            target.close().await?;
            shown
        }
    }
}

async fn show_result(
    global: &GlobalOptions,
    target: &ServerTarget,
    run: &str,
) -> anyhow::Result<ExitCode> {
    let view: RunView = target.client.get(&format!("/v1/runs/{run}"), &[]).await?;
    if global.json {
        terminal::print_json_line(&view)?;
    } else {
        view::write_tree(&mut std::io::stderr(), &view)?;
        match &view.output {
            Some(Value::String(text)) => terminal::print_text(text),
            Some(value) => terminal::print_json(value)?,
            None => {}
        }
    }
    let is_completed = view.status == "completed";
    Ok(if is_completed { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Leaves a run to itself. A server within this process is replaced by a background process that
/// ends when no work is left.
pub(super) async fn detach_run(
    global: &GlobalOptions,
    target: ServerTarget,
    run: &str,
) -> anyhow::Result<ExitCode> {
    let is_own = target.own_server.is_some();
    target.close().await?;
    if is_own {
        let data = DataDir::find_folder(global.data.as_deref())?;
        // The background server outlives this terminal: its output goes to a file.
        let log = create_private_file(&data.as_path().join("background.log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--until-idle", "--listen", "127.0.0.1:0", "--data"]);
        command.arg(data.as_path());
        if let Some(url) = &global.read_models.database {
            // In the environment and not among the arguments, which other users can read.
            command.env("DATABASE_URL", url);
        }
        if let Some(file) = &global.read_models.read_models_file {
            command.arg("--read-models-file").arg(file);
        }
        for url in &global.model_urls {
            command.args(["--model-url", url]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // In a process group of its own, so that the terminal's Ctrl-C does not reach it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn()?;
    }
    if global.json {
        terminal::print_json_line(&json!({"run_id": run, "detached": true}))?;
    } else {
        err_line!("detached; the run goes on. Follow it: convergio runs tail {run}");
    }
    Ok(ExitCode::from(exit::DETACHED))
}
