//! `convergio doctor`: checks folder, permissions, keys, servers, models and tools.

use std::io::Write;
use std::process::{Command, ExitCode, Stdio};

use convergio_eventstore::ExportSigner;
use convergio_eventstore::private_files::create_private_file;
use convergio_local_models::managed_model;
use convergio_process::terminal::print_json;
use convergio_process::{exit, out_line};
use convergio_server::data_dir::DataDir;
use convergio_server::model_servers::{describe_server, find_model_servers, is_consented};
use serde::Serialize;

use crate::cli::GlobalOptions;
use crate::client::ApiClient;
use crate::target::trusted_server;

/// Result of one check, with advice if it did not pass.
#[derive(Debug, Serialize)]
struct DoctorCheck {
    category: &'static str,
    name: &'static str,
    /// One of `ok`, `warn` and `fail`.
    status: &'static str,
    message: String,
    /// Advice to the user; absent when the check passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

fn check_from_result(
    category: &'static str,
    name: &'static str,
    result: Result<String, (bool, String, &str)>,
) -> DoctorCheck {
    match result {
        Ok(message) => DoctorCheck { category, name, status: "ok", message, fix: None },
        Err((fatal, message, fix)) => {
            let status = if fatal { "fail" } else { "warn" };
            DoctorCheck { category, name, status, message, fix: Some(fix.to_owned()) }
        }
    }
}

pub(super) async fn run(global: &GlobalOptions) -> anyhow::Result<ExitCode> {
    let data = DataDir::find_folder(global.data.as_deref())?;
    let checks = vec![
        check_from_result("data", "modes", check_modes(&data)),
        check_from_result("data", "folder", check_folder(&data)),
        check_from_result("data", "signer", check_signer(&data)),
        check_from_result("data", "server", check_server(&data).await),
        check_from_result("models", "running", check_models(global).await),
        check_from_result("models", "managed", check_managed_model()),
        check_from_result("tools", "python3", check_python()),
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

/// Outcome of a check: a message, or whether the failure is fatal, its message and advice.
type CheckResult = Result<String, (bool, String, &'static str)>;

/// Checks that only the owner may use the folder, and removes permissions of others where possible.
fn check_modes(data: &DataDir) -> CheckResult {
    let narrowed = data.narrow_modes();
    let wide = data.wide_entries();
    if !wide.is_empty() {
        let message = format!("others may use {}", wide.join(", "));
        return Err((false, message, "run `chmod go=` on them, as who owns them"));
    }
    if !narrowed.is_empty() {
        let message = format!("others could use {}; now only you can", narrowed.join(", "));
        return Err((false, message, "nothing: it is done. Who may have read it is not known"));
    }
    Ok("only you may use what is in the folder".into())
}

fn check_folder(data: &DataDir) -> CheckResult {
    let unusable = |error: String| (true, error, "use another folder by --data");
    data.create_folder().map_err(|error| unusable(error.to_string()))?;
    let probe = data.as_path().join("probe");
    // A real write shows what modes alone do not: a full or read-only disk.
    create_private_file(&probe)
        .and_then(|mut file| file.write_all(b"x"))
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| {
            unusable(format!("cannot write to {}: {error}", data.as_path().display()))
        })?;
    Ok(data.as_path().display().to_string())
}

/// Checks the key that signs exported runs.
fn check_signer(data: &DataDir) -> CheckResult {
    if !data.as_path().join("payload.key").exists() {
        return Ok("exported runs will be signed once the folder has a log".into());
    }
    let unusable = |error: anyhow::Error| {
        (true, error.to_string(), "restore payload.key from where it is kept")
    };
    let fingerprint = ExportSigner::new(&*data.payload_key().map_err(unusable)?).fingerprint();
    Ok(format!("exported runs are signed by {fingerprint}"))
}

async fn check_server(data: &DataDir) -> CheckResult {
    let Some(server_record) = data.server_record() else {
        return Ok("no server uses the folder".into());
    };
    let running = trusted_server(data).unwrap_or(server_record);
    // The health check needs no token, and another process may listen there.
    let client = ApiClient::new(&running.url, "");
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

async fn check_models(global: &GlobalOptions) -> CheckResult {
    let unreadable = |error: anyhow::Error| {
        (true, format!("{error:#}"), "repair the file, or remove it and trust anew")
    };
    let found = find_model_servers(&global.model_urls).await.map_err(unreadable)?;
    if let Some(server) = found.iter().find(|server| !is_consented(server)) {
        return Err((false, describe_server(server), "confirm it if you trust that user"));
    }
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

fn check_managed_model() -> CheckResult {
    match managed_model::installed_folder() {
        Some(folder) => Ok(folder.display().to_string()),
        None => Err((false, "not installed".into(), "run `convergio models install`")),
    }
}

fn check_python() -> CheckResult {
    let mut command = Command::new("python3");
    command.args(["-I", "-c", "import venv"]).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok("python3 with venv".into()),
        _ => Err((
            false,
            "python3 with venv is missing".into(),
            "needed only for `convergio models install`: apt-get install python3-venv",
        )),
    }
}
