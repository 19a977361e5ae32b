//! `convergio doctor`: is everything in place?

use std::process::{Command, ExitCode, Stdio};

use convergio_executor::model::detect;
use serde::Serialize;

use super::print_json;
use crate::cli::Global;
use crate::client::Client;
use crate::data_dir::DataDir;
use crate::exit;
use crate::managed_model;

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    category: &'static str,
    name: &'static str,
    /// `ok`, `warn` or `fail`.
    status: &'static str,
    message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

fn check(
    category: &'static str,
    name: &'static str,
    result: Result<String, (bool, String, &str)>,
) -> Check {
    match result {
        Ok(message) => Check { category, name, status: "ok", message, fix: None },
        Err((fatal, message, fix)) => {
            let status = if fatal { "fail" } else { "warn" };
            Check { category, name, status, message, fix: Some(fix.to_owned()) }
        }
    }
}

pub(super) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref());
    let checks = vec![
        check("data", "folder", folder(&data)),
        check("data", "server", server(&data).await),
        check("models", "running", models(global).await),
        check("models", "managed", managed(&data)),
        check("tools", "python3", python()),
    ];
    let failed = checks.iter().any(|check| check.status == "fail");
    if global.json {
        print_json(&checks)?;
    } else {
        for check in &checks {
            out_line!(
                "{:<4} {:<8} {:<8} {}",
                check.status,
                check.category,
                check.name,
                check.message
            );
            if let Some(fix) = &check.fix {
                out_line!("     -> {fix}");
            }
        }
    }
    Ok(if failed { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS })
}

type Checked = Result<String, (bool, String, &'static str)>;

fn folder(data: &DataDir) -> Checked {
    let unusable = |error: String| (true, error, "use another folder by --data");
    data.create().map_err(|error| unusable(error.to_string()))?;
    let probe = data.path().join("probe");
    std::fs::write(&probe, b"x")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| unusable(format!("cannot write to {}: {error}", data.path().display())))?;
    Ok(data.path().display().to_string())
}

async fn server(data: &DataDir) -> Checked {
    let Some(running) = data.running() else { return Ok("no server uses the folder".into()) };
    let client = Client::new(&running.url, &data.token().unwrap_or_default());
    match client {
        Ok(client) if client.is_alive().await => {
            Ok(format!("running at {} (pid {})", running.url, running.pid))
        }
        _ => Err((
            false,
            format!("{} does not answer", running.url),
            "it ended without cleaning up; the next start does",
        )),
    }
}

async fn models(global: &Global) -> Checked {
    let found = detect(&global.model_urls).await;
    let names: Vec<_> =
        found.iter().flat_map(|server| server.models.iter().map(|m| m.id.clone())).collect();
    match names.is_empty() {
        true => Err((
            false,
            "no model server answers on this machine".into(),
            "start Ollama, llama.cpp or MLX, or run `convergio models install`",
        )),
        false => Ok(names.join(", ")),
    }
}

fn managed(data: &DataDir) -> Checked {
    match managed_model::installed(data) {
        Some(folder) => Ok(folder.display().to_string()),
        None => Err((false, "not installed".into(), "run `convergio models install`")),
    }
}

fn python() -> Checked {
    let mut command = Command::new("python3");
    command.args(["-c", "import venv"]).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok("python3 with venv".into()),
        _ => Err((
            false,
            "python3 with venv is missing".into(),
            "needed only for `convergio models install`: apt-get install python3-venv",
        )),
    }
}
